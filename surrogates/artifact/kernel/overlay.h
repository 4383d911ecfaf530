/* One step of the recurrent law: parallel viscoplastic elements whose constants a small network reads from the state.
 *
 * The equations stand in surrogates/path/overlay.py. The sizes are macros: ELEMENTS, MEMORY, MIXED, PRODUCTS, BASIS
 * and WIDTH. Strains are in per cent, times in microseconds. */

#include "vector.h"

#define TENSORS (ELEMENTS + MEMORY + 1) /* elastic strains, memory tensors, total strain */
#define EXTENDED (TENSORS + PRODUCTS)
#define FEATURES (MIXED * (MIXED + 1) / 2 + PRODUCTS * MIXED + PRODUCTS + 1)
#define PER_ELEMENT (2 + BASIS)
#define PER_MEMORY (1 + ELEMENTS + BASIS)
#define OUTPUTS (ELEMENTS * PER_ELEMENT + MEMORY * PER_MEMORY)

#define SPAN C(1.5)        /* strengths, viscosities and rates vary by exp(+-SPAN) */
#define DIRECTION C(0.3)   /* scale of the coefficients of tensors */
#define BACK C(0.95)       /* bound of the back strain over the strength */
#define MEMORY_BOUND C(2)  /* bound of the target of a memory tensor */
#define VOLUME C(30)       /* scale of J - 1 */
#define SMALL C(1e-8)      /* added to squares of lengths */
#define PERCENT C(0.01)

typedef struct {
    const real *mix, *left, *right, *basis, *W1, *b1, *W2, *b2, *W3, *b3, *strength, *viscosity, *share, *rate;
} Weights;

/* The places of the weights in their table; returns the number of reals. */
INLINE long places(Weights *w, const real *table) {
    const real *x = table;
#define TAKE(name, count) w->name = x, x += (count)
    TAKE(mix, MIXED * TENSORS), TAKE(left, PRODUCTS * TENSORS), TAKE(right, PRODUCTS * TENSORS);
    TAKE(basis, BASIS * EXTENDED);
    TAKE(W1, WIDTH * FEATURES), TAKE(b1, WIDTH), TAKE(W2, WIDTH * WIDTH), TAKE(b2, WIDTH);
    TAKE(W3, OUTPUTS * WIDTH), TAKE(b3, OUTPUTS);
    TAKE(strength, ELEMENTS), TAKE(viscosity, ELEMENTS), TAKE(share, ELEMENTS), TAKE(rate, MEMORY);
#undef TAKE
    return x - table;
}

/* Softmax of the logarithms of the shares. */
INLINE void shares(const Weights *w, real *share) {
    double sum = 0;
    for (int k = 0; k < ELEMENTS; k++) sum += exp(w->share[k]);
    for (int k = 0; k < ELEMENTS; k++) share[k] = (real)(exp(w->share[k]) / sum);
}

/* What the return of one element leaves for its derivative. */
typedef struct {
    V start, end;                 /* lengths of the relative strain at the start and of its trial at the end */
    V rise, fraction;             /* of the overstress over the step; part of the step in which the element flows */
    V z0, load, q, t, divisor, z; /* the Riccati equation: initial overstress, loading, a dt, tanh, end */
    V flow, ratio, weight, norm;  /* plastic strain; over the mean length; of the increment in the direction; its norm */
    I flows, above, loads;
    V relative[5], trial[5], n[5];
} Return;

/* All that one step computes, kept for the derivative. */
typedef struct {
    V T[TENSORS][5], mixed[MIXED][5], left[PRODUCTS][5], right[PRODUCTS][5], squares[PRODUCTS][5];
    V basis[BASIS][5], basis_norm[BASIS];
    V raw[FEATURES], features[FEATURES], a1[WIDTH], h1[WIDTH], a2[WIDTH], h2[WIDTH], out[OUTPUTS];
    V strength[ELEMENTS], viscosity[ELEMENTS], back_raw[ELEMENTS][5], back_norm[ELEMENTS], back[ELEMENTS][5];
    V rate[MEMORY], target_raw[MEMORY][5], target_norm[MEMORY], target[MEMORY][5];
    V flow[ELEMENTS][5]; /* direction of flow of each element times its part of the plastic strain */
    V plastic, stress[5];
    Return element[ELEMENTS];
    V d_a1[WIDTH], d_a2[WIDTH], d_out[OUTPUTS]; /* derivatives, filled on the way back */
} Step;

INLINE void dense(const real *W, const real *b, const V *x, V *y, int rows, int columns) {
    int j = 0;
    for (; j + 8 <= rows; j += 8) {
        V sum[8];
        for (int u = 0; u < 8; u++) sum[u] = all(b[j + u]);
        for (int i = 0; i < columns; i++)
            for (int u = 0; u < 8; u++) sum[u] += W[(long)(j + u) * columns + i] * x[i];
        for (int u = 0; u < 8; u++) y[j + u] = sum[u];
    }
    for (; j < rows; j++) {
        V sum = all(b[j]);
        for (int i = 0; i < columns; i++) sum += W[(long)j * columns + i] * x[i];
        y[j] = sum;
    }
}

/* y += W x for tensors of five components, two rows at a time. */
INLINE void combine(const real *W, V (*x)[5], V (*y)[5], int rows, int columns, int stride) {
    int a = 0;
    for (; a + 2 <= rows; a += 2) {
        V sum[2][5];
        memcpy(sum, y + a, sizeof sum);
        for (int i = 0; i < columns; i++) {
            V u = all(W[a * stride + i]), v = all(W[(a + 1) * stride + i]);
            for (int c = 0; c < 5; c++) sum[0][c] += u * x[i][c], sum[1][c] += v * x[i][c];
        }
        memcpy(y + a, sum, sizeof sum);
    }
    for (; a < rows; a++)
        for (int i = 0; i < columns; i++)
            for (int c = 0; c < 5; c++) y[a][c] += W[a * stride + i] * x[i][c];
}

INLINE V swish(V a) { return a / (1 + exponential(-a)); }

/* Invariants of the tensors and the basis of isotropic tensors; Eqs. (5), (6). */
INLINE void invariants(const Weights *w, Step *s, V volume) {
    memset(s->mixed, 0, sizeof s->mixed), memset(s->left, 0, sizeof s->left), memset(s->right, 0, sizeof s->right);
    memset(s->basis, 0, sizeof s->basis);
    combine(w->mix, s->T, s->mixed, MIXED, TENSORS, TENSORS);
    combine(w->left, s->T, s->left, PRODUCTS, TENSORS, TENSORS);
    combine(w->right, s->T, s->right, PRODUCTS, TENSORS, TENSORS);
    for (int a = 0; a < PRODUCTS; a++) product(s->left[a], s->right[a], s->squares[a]);
    combine(w->basis, s->T, s->basis, BASIS, TENSORS, EXTENDED);
    combine(w->basis + TENSORS, s->squares, s->basis, BASIS, PRODUCTS, EXTENDED);
    for (int b = 0; b < BASIS; b++) {
        s->basis_norm[b] = root_of(1 + dot(s->basis[b], s->basis[b]));
        for (int c = 0; c < 5; c++) s->basis[b][c] /= s->basis_norm[b];
    }
    int q = 0;
    for (int a = 0; a < MIXED; a++)
        for (int b = a; b < MIXED; b++) s->raw[q++] = dot(s->mixed[a], s->mixed[b]);
    for (int a = 0; a < PRODUCTS; a++)
        for (int b = 0; b < MIXED; b++) s->raw[q++] = dot(s->squares[a], s->mixed[b]);
    for (int a = 0; a < PRODUCTS; a++) s->raw[q++] = dot(s->squares[a], s->squares[a]);
    s->raw[q] = volume * VOLUME;
    for (int i = 0; i < FEATURES; i++) s->features[i] = s->raw[i] / root_of(root_of(1 + s->raw[i] * s->raw[i]));
}

/* tanh(sqrt x) / sqrt x, and its derivative in x. */
INLINE V tanh_ratio(V x, V *derivative) {
    V root = root_of(x + C(1e-4)), tanh = hyperbolic_tangent(root), ratio = tanh / root;
    *derivative = ((1 - tanh * tanh) - ratio) / (2 * root * root);
    return ratio;
}

/* The step of one element; Eqs. (2), (3), (4). */
INLINE void return_of(Return *r, const V *e, const V *back, V strength, V viscosity, const V *D, V dt, V *e_new) {
    V start = all(SMALL), end = all(SMALL), zero = all(0), one = all(1), unused;
    for (int c = 0; c < 5; c++) {
        r->relative[c] = e[c] - back[c];
        r->trial[c] = r->relative[c] + D[c];
        start += r->relative[c] * r->relative[c];
        end += r->trial[c] * r->trial[c];
    }
    r->start = root_of(start), r->end = root_of(end);
    V z0 = r->start - strength, z1 = r->end - strength, rise = z1 - z0;
    r->rise = rise + C(1e-4);
    r->flows = z1 > 0, r->above = z0 >= 0, r->loads = rise > 0;
    I crosses = r->flows & ~r->above;
    V beyond = larger(z1, zero);
    r->fraction = choose(r->above, one, choose(crosses, z1 / choose(crosses, r->rise, one), zero));
    r->z0 = choose(r->above, choose(r->loads, z0, beyond), zero);
    r->load = choose(r->above, choose(r->loads, rise, zero), beyond);
    r->q = viscosity * dt * r->fraction;
    r->t = tanh_ratio(r->q * r->load, &unused);
    r->divisor = 1 + r->z0 * r->q * r->t;
    r->z = (r->z0 + r->load * r->t) / r->divisor;
    r->flow = choose(r->flows, r->z0 + r->load - r->z, zero);
    r->ratio = r->flow / (C(0.5) * (r->start + r->end));
    r->weight = 1 + r->ratio * (C(0.5) + r->ratio * C(1.0 / 6));
    V norm = all(SMALL);
    for (int c = 0; c < 5; c++) {
        r->n[c] = r->relative[c] + r->weight * D[c];
        norm += r->n[c] * r->n[c];
    }
    r->norm = root_of(norm);
    for (int c = 0; c < 5; c++) {
        r->n[c] /= r->norm;
        e_new[c] = choose(r->flows, r->n[c] * (strength + r->z), r->trial[c]) + back[c];
    }
}

/* Advance the elastic strains and memory tensors, and find the stress over 2 G; all in s. */
INLINE void advance(const Weights *w, const real *share, Step *s, V (*e)[5], V (*m)[5], const V *E, V volume, const V *D, V dt) {
    memcpy(s->T, e, ELEMENTS * sizeof *e);
    memcpy(s->T + ELEMENTS, m, MEMORY * sizeof *m);
    memcpy(s->T + ELEMENTS + MEMORY, E, sizeof *s->T);
    invariants(w, s, volume);
    dense(w->W1, w->b1, s->features, s->a1, WIDTH, FEATURES);
    for (int i = 0; i < WIDTH; i++) s->h1[i] = swish(s->a1[i]);
    dense(w->W2, w->b2, s->h1, s->a2, WIDTH, WIDTH);
    for (int i = 0; i < WIDTH; i++) s->h2[i] = swish(s->a2[i]);
    dense(w->W3, w->b3, s->h2, s->out, OUTPUTS, WIDTH);
    V plastic = all(0);
    memset(s->stress, 0, sizeof s->stress);
    for (int k = 0; k < ELEMENTS; k++) {
        const V *out = s->out + k * PER_ELEMENT;
        s->strength[k] = exponential(w->strength[k] + SPAN * hyperbolic_tangent(out[0]));
        s->viscosity[k] = exponential(w->viscosity[k] + SPAN * hyperbolic_tangent(out[1]));
        V size = all(1);
        V sum[5] = {all(0), all(0), all(0), all(0), all(0)};
        for (int b = 0; b < BASIS; b++)
            for (int c = 0; c < 5; c++) sum[c] += out[2 + b] * s->basis[b][c];
        for (int c = 0; c < 5; c++) {
            s->back_raw[k][c] = sum[c] * DIRECTION;
            size += s->back_raw[k][c] * s->back_raw[k][c];
        }
        s->back_norm[k] = root_of(size);
        for (int c = 0; c < 5; c++) s->back[k][c] = BACK * s->strength[k] * s->back_raw[k][c] / s->back_norm[k];
        return_of(&s->element[k], s->T[k], s->back[k], s->strength[k], s->viscosity[k], D, dt, e[k]);
        plastic += share[k] * s->element[k].flow;
        for (int c = 0; c < 5; c++) s->stress[c] += share[k] * e[k][c];
    }
    s->plastic = plastic;
    for (int k = 0; k < ELEMENTS; k++) {
        V part = share[k] * s->element[k].flow / (plastic + C(1e-6));
        for (int c = 0; c < 5; c++) s->flow[k][c] = part * s->element[k].n[c];
    }
    for (int j = 0; j < MEMORY; j++) {
        const V *out = s->out + ELEMENTS * PER_ELEMENT + j * PER_MEMORY;
        s->rate[j] = exponential(w->rate[j] + SPAN * hyperbolic_tangent(out[0]));
        V size = all(MEMORY_BOUND * MEMORY_BOUND), part = 1 - exponential(-s->rate[j] * plastic * PERCENT);
        V x[5] = {all(0), all(0), all(0), all(0), all(0)}, y[5] = {all(0), all(0), all(0), all(0), all(0)};
        for (int k = 0; k < ELEMENTS; k++)
            for (int c = 0; c < 5; c++) x[c] += out[1 + k] * s->flow[k][c];
        for (int b = 0; b < BASIS; b++)
            for (int c = 0; c < 5; c++) y[c] += out[1 + ELEMENTS + b] * s->basis[b][c];
        for (int c = 0; c < 5; c++) {
            s->target_raw[j][c] = x[c] + DIRECTION * y[c];
            size += s->target_raw[j][c] * s->target_raw[j][c];
        }
        s->target_norm[j] = root_of(size);
        for (int c = 0; c < 5; c++) {
            s->target[j][c] = MEMORY_BOUND * s->target_raw[j][c] / s->target_norm[j];
            m[j][c] += part * (s->target[j][c] - m[j][c]);
        }
    }
}
