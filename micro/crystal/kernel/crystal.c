/* The single-crystal law in compiled form: grains of many points, each grain with its own adaptive step.
 *
 * A lane holds one grain of one point until the grain has passed all its instants; then it takes the next one.
 * `algorithm` and constants: see `micro/crystal/compiled.py` and `constants.py`.
 */

#include "step.h"

#define GRAIN (9 + N_SLIP + N_TWIN + 5 + 1) /* B, e, lambda, m, h */

enum { SOLVED = 0, STEP_TOO_SMALL = 1, INVALID = 2, TOO_MANY_STEPS = 3 };

/* What is to be done; arrays row by row. */
typedef struct {
    long points, instants, grains, stride; /* stride of `state` and `state_new` from point to point */
    const double *C;         /* (points, instants, 6), in the frame of the sample */
    const double *duration;  /* (points, instants - 1) */
    const double *turn;      /* (grains, 6, 6): components in the sample's frame to those in the crystal's */
    const double *weight;    /* (grains,) */
    const double *state;     /* of the grains of a point: (grains, GRAIN) */
    double *state_new;
    double *H;               /* (points, instants - 1, grains, 6): B B^T in the frame of the sample */
    double *mean;            /* (points, instants - 1, 6): its mean over the grains */
    double *history;         /* (points, instants - 1, grains, GRAIN) or null */
    long *failed_at;         /* (points,): segment, or instants - 1 where all grains were solved */
    long *status;            /* (points,): the reason at that segment */
    long *solves;            /* (points,): stages */
    long counts[4];          /* steps, rejected steps, Newton iterations of all grains, and lanes that could have taken one */
} Job;

typedef struct {
    long pair[LANES], segment[LANES], steps[LANES]; /* pair = point * grains + grain, -1 in an empty lane */
    int set[LANES], count[LANES];
    long next;
} Queue;

static const int ROW[6] = {0, 1, 2, 0, 1, 0}, COLUMN[6] = {0, 1, 2, 1, 2, 2};

static int proper(const double *C) {
    double first = C[0], second = C[0] * C[1] - C[3] * C[3];
    double third = C[0] * (C[1] * C[2] - C[4] * C[4]) - C[3] * (C[3] * C[2] - C[4] * C[5])
                 + C[5] * (C[3] * C[4] - C[1] * C[5]);
    return first > 0 && second > 0 && third > 0 && isfinite(C[0] + C[1] + C[2] + C[3] + C[4] + C[5]) && isfinite(third);
}

static void load_state(Lanes *z, int l, const double *state) {
    for (int k = 0; k < 9; k++) z->B[k][l] = *state++;
    for (int a = 0; a < N_SLIP; a++) z->e[a][l] = *state++;
    for (int b = 0; b < N_TWIN; b++) z->lam[b][l] = *state++;
    for (int k = 0; k < 5; k++) z->m[k][l] = *state++;
    z->h[l] = *state;
}

static void store_state(const Lanes *z, int l, double *state) {
    for (int k = 0; k < 9; k++) *state++ = z->B[k][l];
    for (int a = 0; a < N_SLIP; a++) *state++ = z->e[a][l];
    for (int b = 0; b < N_TWIN; b++) *state++ = z->lam[b][l];
    for (int k = 0; k < 5; k++) *state++ = z->m[k][l];
    *state = z->h[l];
}

static void fail(Job *job, Queue *q, int l, long status) {
    long point = q->pair[l] / job->grains;
    if (q->segment[l] < job->failed_at[point]) {
        job->failed_at[point] = q->segment[l];
        job->status[point] = status;
    } else if (q->segment[l] == job->failed_at[point] && status < job->status[point]) {
        job->status[point] = status;
    }
    q->pair[l] = -1;
}

/* Puts the grain of lane l before its present segment. Returns whether it can be solved. */
static int begin_segment(const Job *job, const Queue *q, Lanes *z, int l) {
    long point = q->pair[l] / job->grains, grain = q->pair[l] % job->grains;
    const double *C = job->C + (point * job->instants + q->segment[l]) * 6, *turn = job->turn + grain * 36;
    double T = job->duration[point * (job->instants - 1) + q->segment[l]];
    if (!proper(C) || !proper(C + 6) || !isfinite(T) || T < 0) return 0;
    for (int i = 0; i < 6; i++) {
        double first = 0.0, change = 0.0;
        for (int j = 0; j < 6; j++) first += turn[6 * i + j] * C[j], change += turn[6 * i + j] * (C[6 + j] - C[j]);
        z->C0[i][l] = first, z->dC[i][l] = change;
    }
    z->T[l] = T, z->t[l] = 0.0;
    return 1;
}

/* Gives lane l the next grain of the queue, if there is one. */
static void refill(Job *job, Queue *q, Lanes *z, int l) {
    while (q->pair[l] < 0 && q->next < job->points * job->grains) {
        long pair = q->pair[l] = q->next++, point = pair / job->grains;
        const double *state = job->state + point * job->stride + pair % job->grains * GRAIN;
        double sum = 0.0;
        for (int k = 0; k < GRAIN; k++) sum += state[k];
        q->segment[l] = q->steps[l] = 0;
        load_state(z, l, state);
        if (!isfinite(sum) || !begin_segment(job, q, z, l)) fail(job, q, l, INVALID);
    }
}

/* Keeps what is asked for at the end of a segment, and goes on to the next. */
static void end_segment(Job *job, Queue *q, Lanes *z, int l) {
    long point = q->pair[l] / job->grains, grain = q->pair[l] % job->grains, segments = job->instants - 1;
    long place = (point * segments + q->segment[l]) * job->grains + grain;
    const double *turn = job->turn + grain * 36;
    double h[6];
    for (int k = 0; k < 6; k++) {
        int i = 3 * ROW[k], j = 3 * COLUMN[k];
        h[k] = z->B[i][l] * z->B[j][l] + z->B[i + 1][l] * z->B[j + 1][l] + z->B[i + 2][l] * z->B[j + 2][l];
        if (k > 2) h[k] *= 2.0; /* C : H is the same in both frames, so H turns back with the transpose */
    }
    for (int j = 0; j < 6; j++) {
        double sum = 0.0;
        for (int i = 0; i < 6; i++) sum += turn[6 * i + j] * h[i];
        job->H[place * 6 + j] = j > 2 ? 0.5 * sum : sum;
    }
    if (job->history) store_state(z, l, job->history + place * GRAIN);
    q->steps[l] = 0;
    if (++q->segment[l] == segments) {
        store_state(z, l, job->state_new + point * job->stride + grain * GRAIN);
        q->pair[l] = -1;
    } else if (job->failed_at[point] < q->segment[l]) {
        q->pair[l] = -1; /* another grain of the point has failed before */
    } else if (!begin_segment(job, q, z, l)) {
        fail(job, q, l, INVALID);
    }
}

/* A segment without duration: the answer is elastic. */
static void jump(const Law *law, Lanes *z, I now) {
    V C[6], K[6], m[5];
    for (int k = 0; k < 6; k++) C[k] = z->C0[k] + z->dC[k];
    congruence(z->B, C, K);
    V scale = law->G * inverse_cube_root(determinant_symmetric(K));
    deviator(K, m);
    for (int k = 0; k < 5; k++) z->m[k] = choose(now, scale * m[k], z->m[k]);
}

long law_doubles(void) { return sizeof(Law) / sizeof(double); }
long control_doubles(void) { return sizeof(Control) / sizeof(double); }
long job_bytes(void) { return sizeof(Job); }

/* Solves the job. */
void solve(const Law *law, const Control *control, Job *job) {
    Lanes z;
    Stage g;
    Queue q;
    memset(&z, 0, sizeof z);
    memset(&g, 0, sizeof g);
    memset(&q, 0, sizeof q);
    for (int l = 0; l < LANES; l++) q.pair[l] = -1;
    for (long point = 0; point < job->points; point++)
        job->failed_at[point] = job->instants - 1, job->status[point] = SOLVED, job->solves[point] = 0;
    for (;;) {
        I live = all(0.0) > 1.0;
        for (int l = 0; l < LANES; l++) {
            if (q.pair[l] < 0) refill(job, &q, &z, l);
            live[l] = -(q.pair[l] >= 0);
        }
        if (!any(live)) break;
        I now = live & (z.T <= 0), moving = live & ~now, rejected = now & ~now, failed = rejected;
        if (any(now)) jump(law, &z, now);
        if (any(moving)) {
            update_slots(law, control, &z, q.set, q.count);
            g.iterations = g.rounds = 0;
            failed = advance(law, control, &z, moving, &g, &rejected);
            job->counts[2] += g.iterations, job->counts[3] += g.rounds * LANES;
        }
        for (int l = 0; l < LANES; l++) {
            if (!live[l]) continue;
            if (moving[l]) {
                job->solves[q.pair[l] / job->grains] += 2;
                job->counts[0]++, job->counts[1] -= rejected[l];
            }
            if (failed[l])
                fail(job, &q, l, STEP_TOO_SMALL);
            else if (z.t[l] >= z.T[l])
                end_segment(job, &q, &z, l);
            else if (++q.steps[l] > control->most_steps)
                fail(job, &q, l, TOO_MANY_STEPS);
        }
    }
    for (long row = 0; row < job->points * (job->instants - 1); row++) {
        const double *H = job->H + row * job->grains * 6;
        double *mean = job->mean + row * 6;
        for (int k = 0; k < 6; k++) mean[k] = 0.0;
        for (long grain = 0; grain < job->grains; grain++)
            for (int k = 0; k < 6; k++) mean[k] += job->weight[grain] * H[grain * 6 + k];
    }
}
