// The documents against the tree: code they quote stands in the file they name, files they point to exist, lengths are kept.
#include <gtest/gtest.h>

#include <algorithm>

#include "reckon/base/error.h"
#include "reckon/io/files.h"

namespace reckon::docs {
namespace {
constexpr int64_t kMaxFile = 1 << 20;  // bytes

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t at = 0, end; at < text.size(); at = end + 1) {
    end = std::min(text.find('\n', at), text.size());
    lines.push_back(text.substr(at, end - at));
  }
  return lines;
}

// A fenced block that opens with ```cpp PATH.
struct Quote {
  std::string path, code;
};
std::vector<Quote> quotes_of(const std::string& document) {
  std::vector<Quote> quotes;
  bool inside = false;
  for (const std::string& line : lines_of(read_file(document, kMaxFile))) {
    if (!line.starts_with("```")) {
      if (inside) quotes.back().code += line + "\n";
      continue;
    }
    inside = !inside;
    if (!inside) continue;
    check(!line.starts_with("```cpp") || line.size() > 7, "{}: a block of C++ must say which file it quotes: ```cpp PATH", document);
    quotes.push_back({line.starts_with("```cpp ") ? line.substr(7) : "", ""});
  }
  check(!inside, "{}: a fenced block is not closed", document);
  std::erase_if(quotes, [](const Quote& q) { return q.path.empty(); });
  return quotes;
}

std::vector<std::string> documents() {
  std::vector<std::string> paths{"README.md"};
  for (const std::string folder : {"docs/", "docs/tour/"})
    for (const std::string& name : list_directory(folder))
      if (name.ends_with(".md")) paths.push_back(folder + name);
  return paths;
}
std::vector<std::string> rooms() {
  std::vector<std::string> names;
  for (const std::string& name : list_directory("src/reckon"))
    if (is_directory("src/reckon/" + name)) names.push_back(name);
  return names;
}
std::string without_empty_lines(const std::string& text) {
  std::string kept;
  for (const std::string& line : lines_of(text))
    if (!line.empty()) kept += line + "\n";
  return kept;
}

TEST(Documents, QuoteWhatIsInTheFile) {
  for (const std::string& document : documents())
    for (const Quote& q : quotes_of(document)) {
      const std::string file = "\n" + read_file(q.path, kMaxFile);
      EXPECT_NE(file.find("\n" + q.code), file.npos) << document << " quotes what is not in " << q.path << ":\n" << q.code;
    }
}

TEST(Documents, TheWorkedExampleIsWhole) {
  const std::string path = "tests/docs/adding_an_op.cpp", source = read_file(path, kMaxFile);
  const size_t begin = source.find("struct SoftplusParams"), end = source.find("// ---- end of the example");
  ASSERT_LT(begin, end);
  ASSERT_NE(end, source.npos);
  std::string quoted;
  for (const Quote& q : quotes_of("docs/adding_an_op.md"))
    if (q.path == path) quoted += q.code;
  EXPECT_EQ(without_empty_lines(quoted), without_empty_lines(source.substr(begin, end - begin)));
}

// A file is named from the root, from src, from src/reckon or from the document; a name with a star is a family.
bool names_a_file(const std::string& word) {
  if (word.find('/') == word.npos || word.find_first_of("*<>{}$ ") != word.npos) return false;
  return word.ends_with(".cpp") || word.ends_with(".h") || word.ends_with(".def") || word.ends_with(".md") || word.ends_with(".py") ||
         word.ends_with(".sh");
}
TEST(Documents, PointToFilesThatExist) {
  std::vector<std::string> paths = documents();
  for (const std::string& room : rooms()) paths.push_back("src/reckon/" + room + "/README.md");
  int checked = 0;
  for (const std::string& path : paths) {
    const std::string text = read_file(path, kMaxFile);
    for (size_t open = text.find('`'), close; open != text.npos && (close = text.find('`', open + 1)) != text.npos;
         open = text.find('`', close + 1)) {
      const std::string word = text.substr(open + 1, close - open - 1);
      if (!names_a_file(word)) continue;
      ++checked;
      EXPECT_TRUE(path_exists(word) || path_exists("src/" + word) || path_exists("src/reckon/" + word) ||
                  path_exists(join_path(parent_path(path), word)))
          << path << " names " << word;
    }
  }
  EXPECT_GT(checked, 20) << "the search for names finds hardly any: is it broken?";
}

TEST(Documents, EachRoomHasAReadmeOfAtMostThirtyLines) {
  for (const std::string& room : rooms()) {
    const std::string path = "src/reckon/" + room + "/README.md";
    ASSERT_TRUE(path_exists(path)) << "room " << room << " has no README.md: its types, its rule, how to add to it";
    EXPECT_LE(lines_of(read_file(path, kMaxFile)).size(), 30u) << path;
  }
  EXPECT_LE(lines_of(read_file("docs/architecture.md", kMaxFile)).size(), 200u);
}
}  // namespace
}  // namespace reckon::docs
