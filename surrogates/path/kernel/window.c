/* A window of steps of the recurrent law for training: loss and its derivative by all weights, through all its steps.
 *
 * `backward` is the derivative of `advance` (overlay.h), line by line in reverse order; d_x is the derivative of the loss by x. */

#include "overlay.h"
#include <stdlib.h>

#define CLIP C(10) /* bound of the derivative by the state of a point, relative to the weight of the point */

typedef struct { /* derivatives by the weights that are not matrices of the network */
    V mix[MIXED * TENSORS], left[PRODUCTS * TENSORS], right[PRODUCTS * TENSORS], basis[BASIS * EXTENDED];
    V b1[WIDTH], b2[WIDTH], b3[OUTPUTS], strength[ELEMENTS], viscosity[ELEMENTS], share[ELEMENTS], rate[MEMORY];
} Gradient;

long weights_size(void) {
    Weights w;
    return places(&w, 0);
}
long step_bytes(void) { return sizeof(Step); }
long lanes(void) { return LANES; }

INLINE void dense_transposed(const real *W, const V *y, V *x, int rows, int columns) {
    int i = 0;
    for (; i + 8 <= columns; i += 8) {
        V sum[8];
        for (int u = 0; u < 8; u++) sum[u] = all(0);
        for (int j = 0; j < rows; j++)
            for (int u = 0; u < 8; u++) sum[u] += W[(long)j * columns + i + u] * y[j];
        for (int u = 0; u < 8; u++) x[i + u] = sum[u];
    }
    for (; i < columns; i++) {
        V sum = all(0);
        for (int j = 0; j < rows; j++) sum += W[(long)j * columns + i] * y[j];
        x[i] = sum;
    }
}
INLINE V swish_derivative(V a) {
    V s = 1 / (1 + exponential(-a));
    return s * (1 + a * (1 - s));
}
INLINE V tanh_derivative(V a) {
    V t = hyperbolic_tangent(a);
    return 1 - t * t;
}

/* Gets the derivatives by e_new, by n and by the plastic strain; adds those by e, back, strength and viscosity. */
static void return_backward(
    const Return *r, V strength, V viscosity, const V *D, V dt, const V *d_new, const V *d_direction, V d_flow,
    V *d_e, V *d_back, V *d_strength, V *d_viscosity) {
    V zero = all(0), d_relative[5], d_trial[5], d_n[5], d_start = zero, d_end = zero, d_z = zero;
    for (int c = 0; c < 5; c++) {
        d_back[c] += d_new[c];
        V g = choose(r->flows, d_new[c], zero);
        d_trial[c] = d_new[c] - g;
        d_n[c] = d_direction[c] + g * (strength + r->z);
        d_z += g * r->n[c];
        d_relative[c] = zero;
    }
    *d_strength += d_z;
    V along = dot(d_n, r->n), d_weight = zero;
    for (int c = 0; c < 5; c++) {
        V d = (d_n[c] - r->n[c] * along) / r->norm;
        d_relative[c] += d;
        d_weight += d * D[c];
    }
    V d_ratio = d_weight * (C(0.5) + r->ratio * C(1.0 / 3)), mean = C(0.5) * (r->start + r->end);
    d_flow += d_ratio / mean;
    V d_mean = -d_ratio * r->ratio / mean;
    d_start += C(0.5) * d_mean, d_end += C(0.5) * d_mean;
    V g = choose(r->flows, d_flow, zero), d_z0 = g, d_load = g;
    d_z -= g;
    V d_over = d_z / r->divisor, d_divisor = -d_z * r->z / r->divisor, derivative;
    d_z0 += d_over + d_divisor * r->q * r->t;
    d_load += d_over * r->t;
    V d_t = d_over * r->load + d_divisor * r->z0 * r->q, d_q = d_divisor * r->z0 * r->t;
    tanh_ratio(r->q * r->load, &derivative);
    d_q += d_t * derivative * r->load;
    d_load += d_t * derivative * r->q;
    *d_viscosity += d_q * dt * r->fraction;
    V d_fraction = d_q * viscosity * dt, d_first = zero, d_last = zero, d_rise = zero;
    I crosses = r->flows & ~r->above, up = r->above & r->loads;
    V rise = choose(crosses, r->rise, all(1));
    d_last += choose(crosses, d_fraction / rise, zero);
    d_rise -= choose(crosses, d_fraction * r->fraction / rise, zero);
    d_first += choose(up, d_z0, zero);
    d_last += choose(r->above & ~r->loads & r->flows, d_z0, zero);
    d_rise += choose(up, d_load, zero);
    d_last += choose(crosses, d_load, zero);
    d_last += d_rise, d_first -= d_rise;
    d_start += d_first, d_end += d_last;
    *d_strength -= d_first + d_last;
    V a = d_start / r->start, b = d_end / r->end;
    for (int c = 0; c < 5; c++) {
        d_trial[c] += b * r->trial[c];
        d_relative[c] += a * r->relative[c] + d_trial[c];
        d_e[c] += d_relative[c];
        d_back[c] -= d_relative[c];
    }
}

/* Derivatives through the memory: by out, by the directions of flow, by the plastic strain (returned), by T and basis. */
static V memory_backward(const Step *s, V (*d_m)[5], V *d_out, V (*d_flow)[5], V (*d_T)[5], V (*d_basis)[5], Gradient *g) {
    V d_plastic = all(0);
    for (int j = 0; j < MEMORY; j++) {
        int at = ELEMENTS * PER_ELEMENT + j * PER_MEMORY;
        const V *out = s->out + at;
        V *d = d_out + at, part = 1 - exponential(-s->rate[j] * s->plastic * PERCENT), d_part = all(0), along = all(0), d_raw[5];
        for (int c = 0; c < 5; c++) {
            d_part += d_m[j][c] * (s->target[j][c] - s->T[ELEMENTS + j][c]);
            d_T[ELEMENTS + j][c] = d_m[j][c] * (1 - part);
            along += d_m[j][c] * part * s->target[j][c];
        }
        V d_exponent = (1 - part) * d_part * PERCENT, d_rate = d_exponent * s->plastic * s->rate[j];
        d_plastic += d_exponent * s->rate[j];
        g->rate[j] += d_rate;
        d[0] = d_rate * SPAN * tanh_derivative(out[0]);
        along /= MEMORY_BOUND * MEMORY_BOUND;
        for (int c = 0; c < 5; c++)
            d_raw[c] = (MEMORY_BOUND * d_m[j][c] * part - along * MEMORY_BOUND * s->target[j][c]) / s->target_norm[j];
        for (int k = 0; k < ELEMENTS; k++) {
            d[1 + k] = dot(d_raw, s->flow[k]);
            for (int c = 0; c < 5; c++) d_flow[k][c] += out[1 + k] * d_raw[c];
        }
        for (int b = 0; b < BASIS; b++) {
            d[1 + ELEMENTS + b] = DIRECTION * dot(d_raw, s->basis[b]);
            for (int c = 0; c < 5; c++) d_basis[b][c] += DIRECTION * out[1 + ELEMENTS + b] * d_raw[c];
        }
    }
    return d_plastic;
}

/* Derivatives through the elements; d_plastic is that of the plastic strain. */
static void elements_backward(
    const Step *s, V (*d_e)[5], const V *d_stress, V (*d_part)[5], V d_plastic, const V *D, V dt, const real *share,
    V *d_out, V (*d_T)[5], V (*d_basis)[5], Gradient *g) {
    V divisor = s->plastic + C(1e-6), d_size[ELEMENTS], zero = all(0);
    for (int k = 0; k < ELEMENTS; k++) {
        d_size[k] = dot(d_part[k], s->element[k].n);
        d_plastic -= d_size[k] * share[k] * s->element[k].flow / (divisor * divisor);
    }
    for (int k = 0; k < ELEMENTS; k++) {
        const Return *r = &s->element[k];
        const V *out = s->out + k * PER_ELEMENT;
        V *d = d_out + k * PER_ELEMENT, part = share[k] * r->flow / divisor;
        V d_share = d_size[k] * r->flow / divisor + d_plastic * r->flow;
        V d_flow = d_size[k] * share[k] / divisor + d_plastic * share[k], d_new[5], d_direction[5];
        for (int c = 0; c < 5; c++) {
            V e_new = choose(r->flows, r->n[c] * (s->strength[k] + r->z), r->trial[c]) + s->back[k][c];
            d_share += d_stress[c] * e_new;
            d_new[c] = d_e[k][c] + share[k] * d_stress[c];
            d_direction[c] = part * d_part[k][c];
        }
        g->share[k] += d_share;
        V d_back[5] = {zero, zero, zero, zero, zero}, d_strength = zero, d_viscosity = zero;
        return_backward(
            r, s->strength[k], s->viscosity[k], D, dt, d_new, d_direction, d_flow, d_T[k], d_back, &d_strength, &d_viscosity);
        V along = dot(d_back, s->back_raw[k]) / s->back_norm[k], scale = BACK * s->strength[k] / s->back_norm[k], d_raw[5];
        d_strength += BACK * along;
        for (int c = 0; c < 5; c++) d_raw[c] = scale * (d_back[c] - s->back_raw[k][c] * along / s->back_norm[k]);
        for (int b = 0; b < BASIS; b++) {
            d[2 + b] = DIRECTION * dot(d_raw, s->basis[b]);
            for (int c = 0; c < 5; c++) d_basis[b][c] += DIRECTION * out[2 + b] * d_raw[c];
        }
        V by_strength = d_strength * s->strength[k], by_viscosity = d_viscosity * s->viscosity[k];
        g->strength[k] += by_strength, g->viscosity[k] += by_viscosity;
        d[0] = by_strength * SPAN * tanh_derivative(out[0]);
        d[1] = by_viscosity * SPAN * tanh_derivative(out[1]);
    }
}

static void combine_backward(const real *W, V *d_W, V (*x)[5], V (*d_x)[5], V (*d_y)[5], int rows, int columns, int stride) {
    for (int a = 0; a < rows; a++)
        for (int i = 0; i < columns; i++) {
            d_W[a * stride + i] += dot(d_y[a], x[i]);
            for (int c = 0; c < 5; c++) d_x[i][c] += W[a * stride + i] * d_y[a][c];
        }
}

static void invariants_backward(const Weights *w, Step *s, V *d_features, V (*d_basis)[5], V (*d_T)[5], Gradient *g) {
    V d_mixed[MIXED][5], d_squares[PRODUCTS][5], d_left[PRODUCTS][5], d_right[PRODUCTS][5];
    memset(d_mixed, 0, sizeof d_mixed), memset(d_squares, 0, sizeof d_squares);
    for (int i = 0; i < FEATURES; i++) {
        V f = s->raw[i], u = 1 + f * f, root = root_of(root_of(u));
        d_features[i] *= (1 + C(0.5) * f * f) / (root * u);
    }
    int q = 0;
    for (int a = 0; a < MIXED; a++)
        for (int b = a; b < MIXED; b++, q++)
            for (int c = 0; c < 5; c++) {
                d_mixed[a][c] += d_features[q] * s->mixed[b][c];
                d_mixed[b][c] += d_features[q] * s->mixed[a][c];
            }
    for (int a = 0; a < PRODUCTS; a++)
        for (int b = 0; b < MIXED; b++, q++)
            for (int c = 0; c < 5; c++) {
                d_squares[a][c] += d_features[q] * s->mixed[b][c];
                d_mixed[b][c] += d_features[q] * s->squares[a][c];
            }
    for (int a = 0; a < PRODUCTS; a++, q++)
        for (int c = 0; c < 5; c++) d_squares[a][c] += 2 * d_features[q] * s->squares[a][c];
    for (int b = 0; b < BASIS; b++) {
        V along = dot(d_basis[b], s->basis[b]);
        for (int c = 0; c < 5; c++) d_basis[b][c] = (d_basis[b][c] - s->basis[b][c] * along) / s->basis_norm[b];
    }
    combine_backward(w->basis, g->basis, s->T, d_T, d_basis, BASIS, TENSORS, EXTENDED);
    combine_backward(w->basis + TENSORS, g->basis + TENSORS, s->squares, d_squares, d_basis, BASIS, PRODUCTS, EXTENDED);
    for (int a = 0; a < PRODUCTS; a++) {
        product(d_squares[a], s->right[a], d_left[a]);
        product(d_squares[a], s->left[a], d_right[a]);
    }
    combine_backward(w->left, g->left, s->T, d_T, d_left, PRODUCTS, TENSORS, TENSORS);
    combine_backward(w->right, g->right, s->T, d_T, d_right, PRODUCTS, TENSORS, TENSORS);
    combine_backward(w->mix, g->mix, s->T, d_T, d_mixed, MIXED, TENSORS, TENSORS);
}

/* Replaces the derivatives by the state after the step with those by the state before it. */
static void backward(
    const Weights *w, Step *s, V (*d_e)[5], V (*d_m)[5], const V *d_stress, const V *D, V dt, const real *share, Gradient *g) {
    V d_T[TENSORS][5], d_basis[BASIS][5], d_flow[ELEMENTS][5], d_h[WIDTH], d_features[FEATURES];
    memset(d_T, 0, sizeof d_T), memset(d_basis, 0, sizeof d_basis), memset(d_flow, 0, sizeof d_flow);
    V d_plastic = memory_backward(s, d_m, s->d_out, d_flow, d_T, d_basis, g);
    elements_backward(s, d_e, d_stress, d_flow, d_plastic, D, dt, share, s->d_out, d_T, d_basis, g);
    for (int i = 0; i < OUTPUTS; i++) g->b3[i] += s->d_out[i];
    dense_transposed(w->W3, s->d_out, d_h, OUTPUTS, WIDTH);
    for (int i = 0; i < WIDTH; i++) g->b2[i] += s->d_a2[i] = d_h[i] * swish_derivative(s->a2[i]);
    dense_transposed(w->W2, s->d_a2, d_h, WIDTH, WIDTH);
    for (int i = 0; i < WIDTH; i++) g->b1[i] += s->d_a1[i] = d_h[i] * swish_derivative(s->a1[i]);
    dense_transposed(w->W1, s->d_a1, d_features, WIDTH, FEATURES);
    invariants_backward(w, s, d_features, d_basis, d_T, g);
    memcpy(d_e, d_T, ELEMENTS * sizeof *d_e);
    memcpy(d_m, d_T + ELEMENTS, MEMORY * sizeof *d_m);
}

/* Adds the derivative by a matrix: the sum over the steps of y x^T; y and x lie at some places in a step. */
static void add_matrix(double *d_W, const Step *steps, int count, size_t at_y, size_t at_x, int rows, int columns) {
    enum { R = 4, K = 6 };
    for (int j = 0; j < rows; j += R)
        for (int i = 0; i < columns; i += K) {
            V sum[R][K];
            memset(sum, 0, sizeof sum);
            int r = rows - j < R ? rows - j : R, k = columns - i < K ? columns - i : K;
            for (int t = 0; t < count; t++) {
                const V *y = (const V *)((const char *)(steps + t) + at_y) + j;
                const V *x = (const V *)((const char *)(steps + t) + at_x) + i;
                if (r == R && k == K)
                    for (int u = 0; u < R; u++)
                        for (int v = 0; v < K; v++) sum[u][v] += y[u] * x[v];
                else
                    for (int u = 0; u < r; u++)
                        for (int v = 0; v < k; v++) sum[u][v] += y[u] * x[v];
            }
            for (int u = 0; u < r; u++)
                for (int v = 0; v < k; v++) d_W[(long)(j + u) * columns + i + v] += sum_of(sum[u][v]);
        }
}

/* Writes the derivatives by all weights in the order of their table. */
static void collect(const Weights *w, const Gradient *g, const Step *steps, int count, const real *share, double *out) {
#define ADD(name, number) for (int i = 0; i < (number); i++) *out++ += sum_of(g->name[i])
    ADD(mix, MIXED * TENSORS);
    ADD(left, PRODUCTS * TENSORS);
    ADD(right, PRODUCTS * TENSORS);
    ADD(basis, BASIS * EXTENDED);
    add_matrix(out, steps, count, offsetof(Step, d_a1), offsetof(Step, features), WIDTH, FEATURES), out += WIDTH * FEATURES;
    ADD(b1, WIDTH);
    add_matrix(out, steps, count, offsetof(Step, d_a2), offsetof(Step, h1), WIDTH, WIDTH), out += WIDTH * WIDTH;
    ADD(b2, WIDTH);
    add_matrix(out, steps, count, offsetof(Step, d_out), offsetof(Step, h2), OUTPUTS, WIDTH), out += OUTPUTS * WIDTH;
    ADD(b3, OUTPUTS);
    ADD(strength, ELEMENTS);
    ADD(viscosity, ELEMENTS);
    double by[ELEMENTS], mean = 0;
    for (int k = 0; k < ELEMENTS; k++) by[k] = sum_of(g->share[k]), mean += by[k] * share[k];
    for (int k = 0; k < ELEMENTS; k++) *out++ += share[k] * (by[k] - mean);
    ADD(rate, MEMORY);
#undef ADD
    (void)w;
}

/* Bound the derivative by the state of each point, so that no path far from the data decides a step of the optimiser. */
static void bound(V (*d_e)[5], V (*d_m)[5], V weight) {
    V size = all(C(1e-30));
    for (int k = 0; k < ELEMENTS; k++) size += dot(d_e[k], d_e[k]);
    for (int k = 0; k < MEMORY; k++) size += dot(d_m[k], d_m[k]);
    V factor = smaller(all(1), CLIP * weight / root_of(size));
    for (int k = 0; k < ELEMENTS; k++)
        for (int c = 0; c < 5; c++) d_e[k][c] *= factor;
    for (int k = 0; k < MEMORY; k++)
        for (int c = 0; c < 5; c++) d_m[k][c] *= factor;
}

/* Advance LANES points through `count` steps.
 *
 * input (count, 18, LANES): D (5, per cent), E (5), stress over 2 G (5, per cent), dt (us), J - 1, 1 where a stress is
 * given. state (5 (ELEMENTS + MEMORY), LANES) moves on. scale (2, LANES): one over the mean square of the stress of the
 * path, and its weight. The loss is the sum over the lanes of weight times the root of the mean relative square error;
 * it and, where asked for, its derivative are added to loss and gradient. stress (count, 5, LANES) may be null. */
void window(
    const real *table, const real *input, real *state, const real *scale, long count, long derive, double *gradient,
    double *loss, real *stress, Step *steps) {
    Weights w;
    places(&w, table);
    const V(*in)[18] = (const V(*)[18])input;
    const V *norm = (const V *)scale, weight = norm[1];
    V e[ELEMENTS][5], m[MEMORY][5], error = all(0), given = all(0);
    real share[ELEMENTS];
    shares(&w, share);
    memcpy(e, state, sizeof e);
    memcpy(m, state + 5 * ELEMENTS * LANES, sizeof m);
    for (int t = 0; t < count; t++) {
        Step *s = derive ? steps + t : steps;
        advance(&w, share, s, e, m, in[t] + 5, in[t][16], in[t], in[t][15]);
        if (stress) memcpy(stress + 5 * LANES * t, s->stress, sizeof s->stress);
        for (int c = 0; c < 5; c++) error += (s->stress[c] - in[t][10 + c]) * (s->stress[c] - in[t][10 + c]) * in[t][17];
        given += in[t][17];
    }
    memcpy(state, e, sizeof e);
    memcpy(state + 5 * ELEMENTS * LANES, m, sizeof m);
    V factor = norm[0] / larger(given, all(1)), length = root_of(error * factor + C(1e-6));
    *loss += sum_of(length * weight);
    if (!derive) return;
    static __thread Gradient *g;
    if (!g) g = aligned_alloc(64, (sizeof(Gradient) + 63) / 64 * 64);
    memset(g, 0, sizeof *g);
    V d_e[ELEMENTS][5], d_m[MEMORY][5];
    memset(d_e, 0, sizeof d_e), memset(d_m, 0, sizeof d_m);
    factor = factor / length * weight;
    for (int t = (int)count - 1; t >= 0; t--) {
        V d_stress[5];
        for (int c = 0; c < 5; c++) d_stress[c] = factor * in[t][17] * (steps[t].stress[c] - in[t][10 + c]);
        backward(&w, steps + t, d_e, d_m, d_stress, in[t], in[t][15], share, g);
#ifndef DOUBLE
        bound(d_e, d_m, weight);
#else
        (void)bound;
#endif
    }
    collect(&w, g, steps, (int)count, share, gradient);
}
