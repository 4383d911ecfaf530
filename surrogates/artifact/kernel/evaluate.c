/* The recurrent law at n points: first Piola-Kirchhoff stress and new state.
 *
 * Kinematics are double precision, the elements and their network single. The equations stand in
 * surrogates/path/recurrent.py; a state is G - I (9), elastic strains and memory tensors (5 each), plastic length and
 * dissipated energy. */

#include "kinematics.h"
#include "overlay.h"
#include <stdlib.h>

#define STATE (9 + 5 * (ELEMENTS + MEMORY) + 2)
#define MOST 10000              /* pieces of a step */

typedef struct {
    long points;
    const float *weights;
    const double *F, *state;
    double *P, *state_new;
    double dt, bulk, shear, limit; /* s, Pa, Pa, strain of a piece */
} Job;

long weights_size(void) {
    Weights w;
    return places(&w, 0);
}
long job_bytes(void) { return sizeof(Job); }
long state_size(void) { return STATE; }

INLINE void square(const D *a, const D *b, D *c) { /* the product of two symmetric tensors that commute */
    for (int k = 0; k < 6; k++) {
        int i = ROW[k], j = COLUMN[k];
        c[k] = a[PLACE[3 * i]] * b[PLACE[j]] + a[PLACE[3 * i + 1]] * b[PLACE[3 + j]] + a[PLACE[3 * i + 2]] * b[PLACE[6 + j]];
    }
}
/* Five components of the deviator of a symmetric tensor, times a factor, into one half of a vector of reals. */
INLINE void five(const D *c, double factor, V *out, int part) {
    const double r2 = 0.70710678118654752440 * factor, r6 = 0.40824829046386301637 * factor;
    D v[5] = {(c[0] - c[1]) * r2, (2.0 * c[2] - c[0] - c[1]) * r6, 2.0 * r2 * c[3], 2.0 * r2 * c[4], 2.0 * r2 * c[5]};
    for (int k = 0; k < 5; k++)
        for (int l = 0; l < HALF; l++) out[k][part * HALF + l] = (real)v[k][l];
}
INLINE void six(const double *v, double factor, double *c) { /* the tensor of five components, for one point */
    const double x = 0.70710678118654752440 * factor, y = 0.40824829046386301637 * factor;
    c[0] = x * v[0] - y * v[1], c[1] = -x * v[0] - y * v[1], c[2] = 2 * y * v[1];
    c[3] = x * v[2], c[4] = x * v[3], c[5] = x * v[4];
}

/* The kinematics of a block of points. */
typedef struct {
    D F[PARTS][9], G0[PARTS][9], G[PARTS][9], G_inverse[PARTS][9], J[PARTS], X[PARTS][6], pieces[PARTS];
} Block;

/* X = B - I of the whole step, B = G^-T C G^-1, and the pieces into which it is cut. Returns the most of all points. */
static int prepare(Block *b, double limit) {
    int most = 1;
    for (int h = 0; h < PARTS; h++) {
        D A[9], AT[9], B[6];
        memcpy(b->G0[h], b->G[h], sizeof b->G[h]);
        b->J[h] = invert(b->G[h], b->G_inverse[h]);
        times(b->F[h], b->G_inverse[h], A);
        for (int k = 0; k < 9; k++) AT[k] = A[3 * (k % 3) + k / 3];
        gram(AT, B);
        D mean = (B[0] + B[1] + B[2]) / 3.0, size = every(0);
        for (int k = 0; k < 6; k++) {
            D dev = k < 3 ? B[k] - mean : B[k];
            size += (k < 3 ? 1.0 : 2.0) * dev * dev;
            b->X[h][k] = k < 3 ? B[k] - 1.0 : B[k];
        }
        size = square_root(size) / (2.0 * mean);
        for (int l = 0; l < HALF; l++) {
            double n = ceil(size[l] / limit);
            if (!(n > 1)) n = 1; /* not-a-number stays in the result */
            if (n > MOST) n = MOST;
            b->pieces[h][l] = n;
            most = n > most ? (int)n : most;
        }
    }
    return most;
}

/* Piece j of the step: strain increment D (per cent), E and J - 1 at its start, its part of dt; G moves on. */
static void piece(Block *b, int j, V *increment, V *E, V *volume, V *part) {
    for (int h = 0; h < PARTS; h++) {
        D B[6], M[9], S[9], G[9];
        D at = pick(b->pieces[h] < (double)j, b->pieces[h], every(j)) / b->pieces[h];
        DI there = b->pieces[h] >= (double)j;
        for (int k = 0; k < 6; k++) B[k] = at * b->X[h][k] + (k < 3 ? 1.0 : 0.0);
        gram(b->G[h], M); /* the strain at the start */
        D mean = (M[0] + M[1] + M[2]) / 3.0, K[9], K_inverse[9];
        for (int k = 0; k < 9; k++) K[k] = M[PLACE[k]] / mean + (k % 4 ? 0.0 : 1.0);
        invert(K, K_inverse);
        D strain[6];
        for (int k = 0; k < 6; k++) strain[k] = -2.0 * K_inverse[3 * ROW[k] + COLUMN[k]];
        five(strain, 1.0, E, h);
        if (j > 1) {
            b->J[h] = invert(b->G[h], b->G_inverse[h]);
            times(b->G0[h], b->G_inverse[h], M);
            congruence(M, B, B);
        }
        D t = (B[0] + B[1] + B[2]) / 3.0, Y[6], Y2[6], Y3[6], Y4[6], L[6];
        for (int k = 0; k < 6; k++) Y[k] = B[k] / t - (k < 3 ? 1.0 : 0.0);
        square(Y, Y, Y2), square(Y2, Y, Y3), square(Y2, Y2, Y4);
        t = square_root(t);
        for (int k = 0; k < 6; k++) {
            L[k] = Y[k] - Y2[k] / 2.0 + Y3[k] / 3.0 - Y4[k] / 4.0;
            Y[k] = t * ((k < 3 ? 1.0 : 0.0) + Y[k] / 2.0 - Y2[k] / 8.0 + Y3[k] / 16.0 - Y4[k] * (5.0 / 128));
        }
        five(L, 50.0, increment, h);
        for (int k = 0; k < 9; k++) S[k] = Y[PLACE[k]];
        times(S, b->G[h], G);
        for (int l = 0; l < HALF; l++) {
            (*volume)[h * HALF + l] = (real)(b->J[h][l] - 1);
            (*part)[h * HALF + l] = there[l] ? (real)(1 / b->pieces[h][l]) : 0;
        }
        for (int k = 0; k < 9; k++) b->G[h][k] = pick(there, G[k], b->G[h][k]);
    }
}

/* P = F S + K (J - 1) cof F with S = G^-1 tau G^-T, for part h; tau in six components. */
static void first_piola(const Block *b, int h, const D *tau, double bulk, D *P) {
    D inverse[9], transposed[9], S[6], full[9], FS[9], cofactor[9];
    invert(b->G[h], inverse);
    for (int k = 0; k < 9; k++) transposed[k] = inverse[3 * (k % 3) + k / 3];
    congruence(transposed, tau, S);
    for (int k = 0; k < 9; k++) full[k] = S[PLACE[k]];
    times(b->F[h], full, FS);
    D J = adjugate(b->F[h], cofactor);
    for (int k = 0; k < 9; k++) P[k] = FS[k] + bulk * (J - 1.0) * cofactor[3 * (k % 3) + k / 3];
}

static void evaluate_block(const Job *job, const Weights *w, const real *share, Step *s, long first, int count) {
    Block b;
    V e[ELEMENTS][5], m[MEMORY][5], old_e[ELEMENTS][5], old_m[MEMORY][5];
    double plastic[LANES], dissipated[LANES];
    V *const tensors[2] = {&e[0][0], &m[0][0]};
    const int sizes[2] = {5 * ELEMENTS, 5 * MEMORY};
    for (int l = 0; l < LANES; l++) {
        long row = first + (l < count ? l : count - 1);
        const double *state = job->state + row * STATE, *F = job->F + 9 * row;
        for (int k = 0; k < 9; k++) {
            b.F[l / HALF][k][l % HALF] = F[k];
            b.G[l / HALF][k][l % HALF] = state[k] + (k % 4 ? 0 : 1);
        }
        state += 9;
        for (int a = 0; a < 2; a++)
            for (int i = 0; i < sizes[a]; i++) tensors[a][i][l] = (real)*state++;
        plastic[l] = state[0], dissipated[l] = state[1];
    }
    int most = prepare(&b, job->limit);
    for (int j = 1; j <= most; j++) {
        V D_[5], E[5], volume, part;
        piece(&b, j, D_, E, &volume, &part);
        memcpy(old_e, e, sizeof e), memcpy(old_m, m, sizeof m);
        advance(w, share, s, e, m, E, volume, D_, part * (real)(job->dt * 1e6));
        I there = part > 0;
        V lost = all(0);
        for (int k = 0; k < ELEMENTS; k++)
            for (int c = 0; c < 5; c++)
                lost += share[k] * (old_e[k][c] + e[k][c]) * (D_[c] - (e[k][c] - old_e[k][c]));
        for (int l = 0; l < LANES; l++)
            if (there[l]) plastic[l] += 0.01 * s->plastic[l], dissipated[l] += job->shear * 1e-4 * lost[l];
        for (int k = 0; k < ELEMENTS; k++)
            for (int c = 0; c < 5; c++) e[k][c] = choose(there, e[k][c], old_e[k][c]);
        for (int k = 0; k < MEMORY; k++)
            for (int c = 0; c < 5; c++) m[k][c] = choose(there, m[k][c], old_m[k][c]);
    }
    for (int h = 0; h < PARTS; h++) {
        D tau[6], P[9];
        for (int l = 0; l < HALF; l++) {
            double v[5] = {0}, t[6];
            for (int k = 0; k < ELEMENTS; k++)
                for (int c = 0; c < 5; c++) v[c] += (double)share[k] * e[k][c][h * HALF + l];
            six(v, 2 * job->shear * 0.01, t);
            for (int k = 0; k < 6; k++) tau[k][l] = t[k];
        }
        first_piola(&b, h, tau, job->bulk, P);
        for (int l = 0; l < HALF && h * HALF + l < count; l++) {
            long row = first + h * HALF + l;
            double *state = job->state_new + row * STATE;
            for (int k = 0; k < 9; k++) job->P[9 * row + k] = P[k][l], *state++ = b.G[h][k][l] - (k % 4 ? 0 : 1);
            for (int a = 0; a < 2; a++)
                for (int i = 0; i < sizes[a]; i++) *state++ = tensors[a][i][h * HALF + l];
            state[0] = plastic[h * HALF + l], state[1] = dissipated[h * HALF + l];
        }
    }
}

/* Returns 0, or 1 if there is no memory. */
int evaluate(const Job *job) {
    Weights w;
    real share[ELEMENTS];
    places(&w, job->weights);
    shares(&w, share);
    Step *s = aligned_alloc(64, (sizeof(Step) + 63) / 64 * 64);
    if (!s) return 1;
    for (long first = 0; first < job->points; first += LANES) {
        long left = job->points - first;
        evaluate_block(job, &w, share, s, first, left < LANES ? (int)left : LANES);
    }
    free(s);
    return 0;
}
