// backend/cpu/vec_targets: which instruction sets the vector kernels are compiled for. Include it before any Highway header.
// AVX2 and AVX-512 are chosen at run time; other machines take the plain baseline. Fewer targets keep the build short.
#pragma once
#define HWY_DISABLED_TARGETS (HWY_AVX3_DL | HWY_SSE4 | HWY_SSSE3)
