/* Vectors of doubles, one material point in each lane, and 3 x 3 tensors of them in rows. */

#pragma once
#include "vector.h"

typedef double D __attribute__((vector_size(BYTES)));
typedef int64_t DI __attribute__((vector_size(BYTES)));
#define HALF (BYTES / 8)        /* lanes of a vector of doubles */
#define PARTS (LANES / HALF)    /* vectors of doubles for the points of a vector of reals */

INLINE D every(double x) { return x - (D){0}; }
INLINE D pick(DI mask, D a, D b) { return (D)((mask & (DI)a) | (~mask & (DI)b)); }
INLINE D square_root(D a) {
    for (int l = 0; l < HALF; l++) a[l] = sqrt(a[l]);
    return a;
}
INLINE void times(const D *a, const D *b, D *c) {
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) c[3 * i + j] = a[3 * i] * b[j] + a[3 * i + 1] * b[3 + j] + a[3 * i + 2] * b[6 + j];
}
static const int ROW[6] = {0, 1, 2, 0, 1, 0}, COLUMN[6] = {0, 1, 2, 1, 2, 2}, PLACE[9] = {0, 3, 5, 3, 1, 4, 5, 4, 2};

/* a^T b a of a symmetric b; symmetric tensors have the order 11, 22, 33, 12, 23, 13. */
INLINE void congruence(const D *a, const D *b, D *c) {
    D full[9], ba[9];
    for (int k = 0; k < 9; k++) full[k] = b[PLACE[k]];
    times(full, a, ba);
    for (int k = 0; k < 6; k++) {
        int i = ROW[k], j = COLUMN[k];
        c[k] = a[i] * ba[j] + a[3 + i] * ba[3 + j] + a[6 + i] * ba[6 + j];
    }
}
/* a a^T. */
INLINE void gram(const D *a, D *c) {
    for (int k = 0; k < 6; k++) {
        int i = 3 * ROW[k], j = 3 * COLUMN[k];
        c[k] = a[i] * a[j] + a[i + 1] * a[j + 1] + a[i + 2] * a[j + 2];
    }
}
/* Transposed cofactors of a; returns its determinant. */
INLINE D adjugate(const D *a, D *b) {
    b[0] = a[4] * a[8] - a[5] * a[7], b[1] = a[2] * a[7] - a[1] * a[8], b[2] = a[1] * a[5] - a[2] * a[4];
    b[3] = a[5] * a[6] - a[3] * a[8], b[4] = a[0] * a[8] - a[2] * a[6], b[5] = a[2] * a[3] - a[0] * a[5];
    b[6] = a[3] * a[7] - a[4] * a[6], b[7] = a[1] * a[6] - a[0] * a[7], b[8] = a[0] * a[4] - a[1] * a[3];
    return a[0] * b[0] + a[1] * b[3] + a[2] * b[6];
}
INLINE D invert(const D *a, D *b) {
    D determinant = adjugate(a, b);
    for (int k = 0; k < 9; k++) b[k] /= determinant;
    return determinant;
}
