/* Vectors of doubles, one crystal in each lane, and the few functions that the law needs of them.
 *
 * A vector is as wide as the processor's: wider ones are split by the compiler, which is several times slower. */

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define LANES 8
#elif defined(__AVX__)
#define LANES 4
#else
#define LANES 2
#endif
#if defined(__AVX__)
#include <immintrin.h>
#endif
#define INLINE static inline __attribute__((always_inline))

typedef double V __attribute__((vector_size(8 * LANES)));
typedef long long I __attribute__((vector_size(8 * LANES))); /* a mask: -1 where a comparison holds, 0 elsewhere */

INLINE V all(double x) { return x - (V){0}; }
/* In `choose`, `larger` and `smaller` b is the answer where a comparison with a does not hold, as for not-a-number. */
#if defined(__AVX512F__)
INLINE V choose(I mask, V a, V b) {
    return (V)_mm512_mask_blend_pd(_mm512_test_epi64_mask((__m512i)mask, (__m512i)mask), (__m512d)b, (__m512d)a);
}
INLINE V larger(V a, V b) { return (V)_mm512_max_pd((__m512d)a, (__m512d)b); }
INLINE V smaller(V a, V b) { return (V)_mm512_min_pd((__m512d)a, (__m512d)b); }
#elif defined(__AVX__)
INLINE V choose(I mask, V a, V b) { return (V)_mm256_blendv_pd((__m256d)b, (__m256d)a, (__m256d)mask); }
INLINE V larger(V a, V b) { return (V)_mm256_max_pd((__m256d)a, (__m256d)b); }
INLINE V smaller(V a, V b) { return (V)_mm256_min_pd((__m256d)a, (__m256d)b); }
#else
INLINE V choose(I mask, V a, V b) { return (V)((mask & (I)a) | (~mask & (I)b)); }
INLINE V larger(V a, V b) { return choose(a > b, a, b); }
INLINE V smaller(V a, V b) { return choose(a < b, a, b); }
#endif
INLINE V root_of(V a) {
#if defined(__AVX512F__)
    return (V)_mm512_sqrt_pd((__m512d)a);
#elif defined(__AVX__)
    return (V)_mm256_sqrt_pd((__m256d)a);
#else
    for (int l = 0; l < LANES; l++) a[l] = sqrt(a[l]);
    return a;
#endif
}
INLINE V positive(V a) { return larger(a, all(0.0)); }
INLINE V magnitude(V a) { return (V)((I)a & INT64_MAX); }
INLINE V sign_of(V a) { return (V)((I)a & INT64_MIN); } /* the bit alone; see `signed_as` */
INLINE V signed_as(V a, V bit) { return (V)((I)a ^ (I)bit); }

INLINE int any(I mask) {
#if defined(__AVX512F__)
    return _mm512_test_epi64_mask((__m512i)mask, (__m512i)mask) != 0;
#elif defined(__AVX__)
    return _mm256_movemask_pd((__m256d)mask) != 0;
#else
    return (mask[0] | mask[1]) != 0;
#endif
}

/* exp(x) for x <= 0, relative error below 1e-15 down to x = -700; zero below. */
INLINE V exponential(V x) {
    const V shift = all(6755399441055744.0); /* 1.5 * 2^52: adding it rounds to an integer in the low bits */
    I tiny = x < -700.0;
    x = choose(tiny, all(0.0), x);
    V n = x * 1.4426950408889634 + shift;
    I exponent = (I)n << 52;
    n -= shift;
    V r = x - n * 0.693147180369123816490;
    r -= n * 1.90821492927058770002e-10;
    V r2 = r * r, r4 = r2 * r2;
    V a = 1.0 + r + r2 * (0.5 + r * (1.0 / 6));
    V b = 1.0 / 24 + r * (1.0 / 120) + r2 * (1.0 / 720 + r * (1.0 / 5040));
    V c = 1.0 / 40320 + r * (1.0 / 362880) + r2 * (1.0 / 3628800 + r * (1.0 / 39916800)) + r4 * (1.0 / 479001600);
    V y = a + r4 * (b + r4 * c);
    return (V)(~tiny & ((I)y + exponent));
}

/* exp(x) for x <= 0, zero below -50, where it does not count beside one. */
INLINE V decay_of(V x) {
    I there = x > -50.0;
    return any(there) ? (V)(there & (I)exponential(x)) : all(0.0);
}

/* x^(-1/3) for positive normal x: a guess from the bits, then Newton's iteration, which needs no division. */
INLINE V inverse_cube_root(V x) {
    V guess = __builtin_convertvector((I)x, V) * (-1.0 / 3) + 6142909891733356544.0;
    V r = (V)__builtin_convertvector(guess, I);
    for (int k = 0; k < 5; k++) r += r * (1.0 - x * r * r * r) * (1.0 / 3);
    return r;
}

INLINE V power(V y, double p) {
    V result;
    for (int l = 0; l < LANES; l++) result[l] = pow(y[l], p);
    return result;
}

/* Products of tensors (3, 3), row by row, and of symmetric ones in the order 11, 22, 33, 12, 23, 13. */
INLINE void times(const V *a, const V *b, V *c) {
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) c[3 * i + j] = a[3 * i] * b[j] + a[3 * i + 1] * b[3 + j] + a[3 * i + 2] * b[6 + j];
}

/* b^T c b of a symmetric c. */
INLINE void congruence(const V *b, const V *c, V *result) {
    const V full[9] = {c[0], c[3], c[5], c[3], c[1], c[4], c[5], c[4], c[2]};
    V cb[9];
    times(full, b, cb);
    static const int row[6] = {0, 1, 2, 0, 1, 0}, column[6] = {0, 1, 2, 1, 2, 2};
    for (int k = 0; k < 6; k++) {
        int i = row[k], j = column[k];
        result[k] = b[i] * cb[j] + b[3 + i] * cb[3 + j] + b[6 + i] * cb[6 + j];
    }
}

INLINE V determinant(const V *a) {
    return a[0] * (a[4] * a[8] - a[5] * a[7]) - a[1] * (a[3] * a[8] - a[5] * a[6]) + a[2] * (a[3] * a[7] - a[4] * a[6]);
}

INLINE V determinant_symmetric(const V *c) {
    return c[0] * (c[1] * c[2] - c[4] * c[4]) - c[3] * (c[3] * c[2] - c[4] * c[5]) + c[5] * (c[3] * c[4] - c[1] * c[5]);
}

/* Transposed cofactors of a, and its determinant: the inverse is the one over the other. */
INLINE V adjugate(const V *a, V *b) {
    b[0] = a[4] * a[8] - a[5] * a[7];
    b[1] = a[2] * a[7] - a[1] * a[8];
    b[2] = a[1] * a[5] - a[2] * a[4];
    b[3] = a[5] * a[6] - a[3] * a[8];
    b[4] = a[0] * a[8] - a[2] * a[6];
    b[5] = a[2] * a[3] - a[0] * a[5];
    b[6] = a[3] * a[7] - a[4] * a[6];
    b[7] = a[1] * a[6] - a[0] * a[7];
    b[8] = a[0] * a[4] - a[1] * a[3];
    return a[0] * b[0] + a[1] * b[3] + a[2] * b[6];
}

/* The tensor (3, 3) of eight components: five of the symmetric trace-free part, three of the skew one. */
INLINE void tensor(const V *d, V *a) {
    const double r2 = 0.70710678118654752440, r6 = 0.40824829046386301637;
    V x = r2 * d[0], y = r6 * d[1], p = r2 * d[2], q = r2 * d[3], r = r2 * d[4];
    a[0] = x - y, a[4] = -x - y, a[8] = 2.0 * y;
    a[1] = p + d[5], a[3] = p - d[5];
    a[5] = q + d[6], a[7] = q - d[6];
    a[2] = r + d[7], a[6] = r - d[7];
}

/* The five components of the deviator of a symmetric tensor. */
INLINE void deviator(const V *c, V *m) {
    const double r2 = 0.70710678118654752440, r6 = 0.40824829046386301637;
    m[0] = (c[0] - c[1]) * r2;
    m[1] = (2.0 * c[2] - c[0] - c[1]) * r6;
    m[2] = 2.0 * r2 * c[3], m[3] = 2.0 * r2 * c[4], m[4] = 2.0 * r2 * c[5];
}
