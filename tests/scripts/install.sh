#!/bin/sh
# What is installed can be used: an example by CMake's find_package, another by pkg-config, and the program. Argument: the build folder.
set -eu
build=$(cd "$1" && pwd)
root=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
prefix=$folder/prefix

cmake --install "$build" --prefix "$prefix" >"$folder/install.log"
# Somewhere else: nothing may point to the tree or to the first prefix.
mv "$prefix" "$folder/moved"
prefix=$folder/moved
package=$(find "$prefix" -name reckon.pc)
[ -f "$package" ]
if grep -rlF -e "$root" -e "$folder/prefix" "$prefix" --include='*.cmake' --include='*.pc'; then
  echo "a path of the build is in the package"
  exit 1
fi

cmake -S "$root/examples" -B "$folder/examples" -G Ninja -DCMAKE_PREFIX_PATH="$prefix" >"$folder/configure.log"
cmake --build "$folder/examples" --target example_linear_regression >"$folder/build.log"
"$folder/examples/example_linear_regression" >"$folder/linear_regression.txt"

PKG_CONFIG_PATH=$(dirname "$package")
export PKG_CONFIG_PATH
cat >"$folder/program.cpp" <<'CODE'
#include <reckon/reckon.h>

#include <cstdio>

int main() {
  const auto cpu = reckon::open_cpu(reckon::Mode::real);
  const reckon::Tensor x = reckon::full(*cpu, {{2, 3}, reckon::DType::f32}, 1.5);
  std::printf("%g\n", reckon::sum(x * 2 + 1).item());
}
CODE
eval "g++ -O1 '$folder/program.cpp' $(pkg-config --cflags --libs reckon) -o '$folder/program'"
[ "$("$folder/program")" = 24 ]
[ "$(pkg-config --modversion reckon)" = "$("$prefix/bin/reckon" --version | sed 's/[^0-9.]//g')" ]
echo "installed, found by CMake and pkg-config, linked and run"
