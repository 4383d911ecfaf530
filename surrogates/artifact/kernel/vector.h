/* Vectors of reals, one material point in each lane. A vector is as wide as the processor's.
 *
 * The reals are single precision; with -DDOUBLE they are double, for tests of the derivatives. */

#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX__)
#include <immintrin.h>
#endif
#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#define INLINE static inline __attribute__((always_inline))

#ifdef DOUBLE
typedef double real;
typedef int64_t integer;
#else
typedef float real;
typedef int32_t integer;
#endif
#define LANES ((int)(BYTES / sizeof(real)))
typedef real V __attribute__((vector_size(BYTES)));
typedef integer I __attribute__((vector_size(BYTES))); /* a mask: -1 where a comparison holds, 0 elsewhere */

#define C(x) ((real)(x))
INLINE V all(real x) { return x - (V){0}; }
INLINE V choose(I mask, V a, V b) { return (V)((mask & (I)a) | (~mask & (I)b)); }
INLINE V larger(V a, V b) { return choose(a > b, a, b); }
INLINE V smaller(V a, V b) { return choose(a < b, a, b); }
INLINE V root_of(V a) {
#if !defined(DOUBLE) && defined(__AVX512F__)
    return (V)_mm512_sqrt_ps((__m512)a);
#elif !defined(DOUBLE) && defined(__AVX__)
    return (V)_mm256_sqrt_ps((__m256)a);
#else
    for (int l = 0; l < LANES; l++) a[l] = (real)sqrt(a[l]);
    return a;
#endif
}
INLINE int any(I mask) {
    integer found = 0;
    for (int l = 0; l < LANES; l++) found |= mask[l];
    return found != 0;
}
INLINE double sum_of(V a) {
    double sum = 0;
    for (int l = 0; l < LANES; l++) sum += a[l];
    return sum;
}

#ifdef DOUBLE
INLINE V exponential(V x) {
    for (int l = 0; l < LANES; l++) x[l] = exp(x[l]);
    return x;
}
#else
/* exp(x) to single precision for |x| < 87; arguments beyond are set to +-87. */
INLINE V exponential(V x) {
    const V shift = all(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    x = smaller(larger(x, all(-87.0f)), all(87.0f));
    V n = (x * 1.44269504f + shift) - shift;
    V r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    V p = 1.3888889e-3f * r + 8.3333333e-3f;
    p = p * r + 4.1666667e-2f;
    p = p * r + 1.6666667e-1f;
    p = p * r + 0.5f;
    p = (p * r) * r + r + 1.0f;
    return p * (V)((__builtin_convertvector(n, I) + 127) << 23);
}
#endif
INLINE V hyperbolic_tangent(V x) {
    x = smaller(larger(x, all(-20)), all(20));
    return 1 - 2 / (exponential(2 * x) + 1);
}

/* Five components of deviators: (11 - 22)/sqrt 2, (2 33 - 11 - 22)/sqrt 6, sqrt 2 times 12, 23, 13. */
INLINE V dot(const V *a, const V *b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3] + a[4] * b[4]; }

/* The deviator of (A B + B A) / 2. The product is symmetric in all three places: dot(product(a, b), c) = dot(product(c, b), a). */
INLINE void product(const V *a, const V *b, V *y) {
    const real p = C(0.40824829046386301637), q = C(0.35355339059327376220); /* 1/sqrt 6, 1/(2 sqrt 2) */
    y[0] = -p * (a[0] * b[1] + a[1] * b[0]) + q * (a[4] * b[4] - a[3] * b[3]);
    y[1] = p * (a[1] * b[1] - a[0] * b[0] - a[2] * b[2]) + p / 2 * (a[3] * b[3] + a[4] * b[4]);
    y[2] = -p * (a[2] * b[1] + a[1] * b[2]) + q * (a[3] * b[4] + a[4] * b[3]);
    y[3] = p / 2 * (a[1] * b[3] + a[3] * b[1]) - q * (a[0] * b[3] + a[3] * b[0]) + q * (a[2] * b[4] + a[4] * b[2]);
    y[4] = p / 2 * (a[1] * b[4] + a[4] * b[1]) + q * (a[0] * b[4] + a[4] * b[0]) + q * (a[2] * b[3] + a[3] * b[2]);
}
