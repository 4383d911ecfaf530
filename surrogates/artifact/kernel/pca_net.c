/* PCA-Net on-line at n points: first Piola-Kirchhoff stress and new state.
 *
 * The equations stand in surrogates/path/pca_law.py. Kinematics are double precision with one point in each lane; the
 * network is single precision with one neuron in each lane, so that a state is read and written as it lies. Points that
 * have one time share the rows of encoder and decoder, which come with the job. A state is what the first layer has
 * from the times passed (STORED), the strain V (6), the time, and the largest |V|.
 *
 * Macros: STORED, width of the layers; WIDTH, the same rounded up to 16; LAYERS, hidden layers after the first. Weights
 * and rows are zero in the neurons that were added, which then stay zero. */

#include "kinematics.h"
#include <stdlib.h>

#define STATE (STORED + 8)
#define BLOCK 48                      /* points evaluated at once */
#define TILE 6                        /* points and vectors of neurons whose sums stay in registers */
#define GROUP (BYTES == 64 ? 4 : 2)

typedef struct {
    long points;
    const float *weights;             /* LAYERS x (WIDTH x WIDTH), inputs first; base (LAYERS + 1) x WIDTH */
    const float *rows;                /* 5 x 6 x WIDTH: V_n and rate passed, V and rate to come, output */
    const double *F, *state;
    double *P, *state_new;
    double dt, inverse_step, bulk, scale; /* s; 1 / step in parts of the window, 0 without one; Pa; Pa */
    long passes, isochoric, full;     /* whether times of the data were passed; what V and the stress are */
} Job;

long job_bytes(void) { return sizeof(Job); }
long state_size(void) { return STATE; }
long weights_size(void) { return LAYERS * WIDTH * WIDTH + (LAYERS + 1) * WIDTH; }

typedef V Loose __attribute__((aligned(4), may_alias));
INLINE V load(const float *p) { return *(const Loose *)p; }
INLINE void store(float *p, V a) { *(Loose *)p = a; }

/* What a block of points keeps between the stages. */
typedef struct {
    D F[BLOCK / HALF][9], R[BLOCK / HALF][9], J[BLOCK / HALF];
    double strains[BLOCK][6], stress[BLOCK][6];
    float x[BLOCK][WIDTH], y[BLOCK][WIDTH], origin[LAYERS + 1][WIDTH]; /* origin: activations for the identity */
} Block;

/* Polar rotation of F, by eight of Newton's iterations on its isochoric part, and the strain V = U - I. */
static void strain(Block *b, int h, int isochoric) {
    const D *F = b->F[h];
    D adjugated[9], bar[9], *R = b->R[h];
    D J = adjugate(F, adjugated), factor;
    for (int l = 0; l < HALF; l++) factor[l] = pow(J[l], -1.0 / 3.0);
    for (int k = 0; k < 9; k++) R[k] = bar[k] = factor * F[k];
    for (int iteration = 0; iteration < 8; iteration++) {
        D half = 0.5 / adjugate(R, adjugated);
        for (int k = 0; k < 9; k++) R[k] = 0.5 * R[k] + half * adjugated[3 * (k % 3) + k / 3];
    }
    const D *G = isochoric ? bar : F;
    for (int k = 0; k < 6; k++) {
        int i = ROW[k], j = COLUMN[k];
        D one = R[i] * G[j] + R[3 + i] * G[3 + j] + R[6 + i] * G[6 + j];
        D two = R[j] * G[i] + R[3 + j] * G[3 + i] + R[6 + j] * G[6 + i];
        D v = k < 3 ? one - 1.0 : 0.70710678118654752440 * (one + two);
        for (int l = 0; l < HALF; l++) b->strains[h * HALF + l][k] = v[l];
    }
    b->J[h] = J;
}

/* sum of six values times their rows, one vector of neurons. */
INLINE V rows_of(const float *rows, const double *v) {
    V sum = (float)v[0] * load(rows);
    for (int c = 1; c < 6; c++) sum += (float)v[c] * load(rows + c * WIDTH);
    return sum;
}

/* The first layer before activation, from the padded history, and the new state of one point. */
static void encode(const Job *job, const double *state, const double *V_new, float *x, double *new) {
    const double *V_n = state + STORED;
    double rate[6], norm = 0;
    for (int c = 0; c < 6; c++) {
        rate[c] = job->inverse_step ? (V_new[c] - V_n[c]) * job->inverse_step : 0;
        norm += V_new[c] * V_new[c];
    }
    norm = sqrt(norm);
    memcpy(new, state, STORED * sizeof *new);
    if (job->passes)
        for (int k = 0; k < WIDTH; k += LANES) {
            V change = rows_of(job->rows + k, V_n) + rows_of(job->rows + 6 * WIDTH + k, rate);
            for (int l = 0; l < LANES && k + l < STORED; l++) new[k + l] += change[l];
        }
    for (int k = 0; k < STORED; k++) x[k] = (float)new[k];
    for (int k = STORED; k < WIDTH; k++) x[k] = 0;
    for (int k = 0; k < WIDTH; k += LANES) {
        V ahead = rows_of(job->rows + 12 * WIDTH + k, V_new) + rows_of(job->rows + 18 * WIDTH + k, rate);
        store(x + k, load(x + k) + ahead);
    }
    memcpy(new + STORED, V_new, 6 * sizeof *new);
    new[STORED + 6] = state[STORED + 6] + job->dt;
    double peak = state[STORED + 7];
    new[STORED + 7] = norm <= peak || peak != peak ? peak : norm; /* not-a-number stays */
}

INLINE V selu(V x) {
    const float scale = 1.0507009873554804934193349852946f, alpha = 1.6732632423543772848170429916717f;
    V y = scale * choose(x > 0, x, alpha * (exponential(x) - 1));
    return choose(x == x, y, x); /* not-a-number stays */
}
/* The change of a layer's output for a change y of its input; zero for zero. */
static void activate(const float *base, const float *origin, float *y) {
    for (int k = 0; k < WIDTH; k += LANES) store(y + k, selu(load(base + k) + load(y + k)) - load(origin + k));
}

/* `group` vectors of neurons of the next layer, at the points of a tile. */
INLINE void tile(const float *W, float (*x)[WIDTH], float (*y)[WIDTH], int k, int group) {
    V sum[TILE][GROUP];
#pragma GCC unroll 8
    for (int p = 0; p < TILE; p++)
#pragma GCC unroll 8
        for (int q = 0; q < group; q++) sum[p][q] = all(0);
    for (int i = 0; i < WIDTH; i++) {
        V w[GROUP];
#pragma GCC unroll 8
        for (int q = 0; q < group; q++) w[q] = load(W + (long)i * WIDTH + k + q * LANES);
#pragma GCC unroll 8
        for (int p = 0; p < TILE; p++)
#pragma GCC unroll 8
            for (int q = 0; q < group; q++) sum[p][q] += x[p][i] * w[q];
    }
#pragma GCC unroll 8
    for (int p = 0; p < TILE; p++)
#pragma GCC unroll 8
        for (int q = 0; q < group; q++) store(y[p] + k + q * LANES, sum[p][q]);
}
static void layer(const float *W, float (*x)[WIDTH], float (*y)[WIDTH], int points) {
    for (int p = 0; p < points; p += TILE) {
        int k = 0;
        for (; k + GROUP * LANES <= WIDTH; k += GROUP * LANES) tile(W, x + p, y + p, k, GROUP);
        for (; k < WIDTH; k += LANES) tile(W, x + p, y + p, k, 1);
    }
}

/* Six components of the stress of one point, Pa. */
static void decode(const Job *job, const float *x, double *stress) {
    for (int c = 0; c < 6; c++) {
        const float *row = job->rows + (24 + c) * WIDTH;
        V sum = all(0);
        for (int k = 0; k < WIDTH; k += LANES) sum += load(row + k) * load(x + k);
        stress[c] = job->scale * sum_of(sum);
    }
}

/* P = (R tau R^T + K (J - 1) J I) F^-T. */
static void first_piola(const Job *job, const Block *b, int h, D *P) {
    D J = b->J[h], t[6], turned[9], tau[6], adjugated[9];
    for (int k = 0; k < 6; k++) {
        for (int l = 0; l < HALF; l++) t[k][l] = b->stress[h * HALF + l][k] * (k < 3 ? 1 : 0.70710678118654752440);
        if (!job->isochoric) t[k] *= J; /* Kirchhoff from Cauchy */
    }
    if (!job->full) {
        D mean = (t[0] + t[1] + t[2]) / 3.0;
        for (int k = 0; k < 3; k++) t[k] -= mean;
    }
    for (int k = 0; k < 9; k++) turned[k] = b->R[h][3 * (k % 3) + k / 3];
    congruence(turned, t, tau);
    for (int k = 0; k < 3; k++) tau[k] += job->bulk * (J - 1.0) * J;
    adjugate(b->F[h], adjugated);
    for (int k = 0; k < 9; k++) {
        const int *row = PLACE + 3 * (k / 3);
        const D *column = adjugated + 3 * (k % 3); /* of the cofactors */
        P[k] = (tau[row[0]] * column[0] + tau[row[1]] * column[1] + tau[row[2]] * column[2]) / J;
    }
}

static void evaluate_block(const Job *job, Block *b, long first, int count) {
    int parts = (count + HALF - 1) / HALF;
    for (int p = 0; p < parts * HALF; p++) {
        const double *F = job->F + 9 * (first + (p < count ? p : count - 1));
        for (int k = 0; k < 9; k++) b->F[p / HALF][k][p % HALF] = F[k];
    }
    for (int h = 0; h < parts; h++) strain(b, h, job->isochoric != 0);
    for (int p = 0; p < count; p++)
        encode(job, job->state + (first + p) * STATE, b->strains[p], b->x[p], job->state_new + (first + p) * STATE);
    const float *base = job->weights + (long)LAYERS * WIDTH * WIDTH;
    float(*x)[WIDTH] = b->x, (*y)[WIDTH] = b->y;
    for (int p = 0; p < count; p++) activate(base, b->origin[0], x[p]);
    for (int n = 0; n < LAYERS; n++) {
        layer(job->weights + (long)n * WIDTH * WIDTH, x, y, count);
        for (int p = 0; p < count; p++) activate(base + (n + 1) * WIDTH, b->origin[n + 1], y[p]);
        float(*last)[WIDTH] = x;
        x = y, y = last;
    }
    for (int p = 0; p < count; p++) decode(job, x[p], b->stress[p]);
    for (int h = 0; h < parts; h++) {
        D P[9];
        first_piola(job, b, h, P);
        for (int l = 0; l < HALF && h * HALF + l < count; l++)
            for (int k = 0; k < 9; k++) job->P[9 * (first + h * HALF + l) + k] = P[k][l];
    }
}

/* Returns 0, or 1 if there is no memory. */
int evaluate(const Job *job) {
    Block *b = aligned_alloc(64, (sizeof(Block) + 63) / 64 * 64);
    if (!b) return 1;
    memset(b, 0, sizeof *b);
    const float *base = job->weights + (long)LAYERS * WIDTH * WIDTH;
    for (int k = 0; k < (LAYERS + 1) * WIDTH; k += LANES) store(b->origin[0] + k, selu(load(base + k)));
    for (long first = 0; first < job->points; first += BLOCK) {
        long left = job->points - first;
        evaluate_block(job, b, first, left < BLOCK ? (int)left : BLOCK);
    }
    free(b);
    return 0;
}
