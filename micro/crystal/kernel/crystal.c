/* The single-crystal law in compiled form: grains of many points, each grain with its own adaptive step.
 *
 * A lane holds one grain of one point until the grain has passed all its instants; then it takes the next one.
 * `algorithm` and constants: see `micro/crystal/compiled.py` and `constants.py`.
 */

#include "step.h"

#define GRAIN (9 + N_SLIP + N_TWIN + 5 + 1) /* B, e, lambda, m, h */
#define BLOCK 16                            /* points whose grains follow one another in the queue */

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
    long counts[4];          /* steps, rejected ones, Newton iterations, lanes that could have taken one */
} Job;

typedef struct {
    long point[LANES], grain[LANES]; /* point -1 in an empty lane */
    long segment[LANES], steps[LANES];
    long turned[LANES]; /* the grain whose frame is in a lane */
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

/* Finds the first segment of each point whose strains or duration are not valid, which no grain can pass. */
static void check(const Job *job) {
    const long segments = job->instants - 1;
    for (long point = 0; point < job->points; point++) {
        const double *C = job->C + point * job->instants * 6, *T = job->duration + point * segments;
        long k = 0;
        if (proper(C))
            while (k < segments && proper(C + 6 * (k + 1)) && isfinite(T[k]) && T[k] >= 0) k++;
        job->failed_at[point] = k, job->status[point] = k < segments ? INVALID : SOLVED, job->solves[point] = 0;
    }
}

/* The first failure of a point counts; of those in one segment what is not valid, otherwise the smallest number. */
static void fail(const Job *job, Queue *q, int l, long status) {
    long point = q->point[l];
    long before = job->status[point];
    int worse = status == INVALID || (before != INVALID && status < before);
    if (q->segment[l] < job->failed_at[point] || (q->segment[l] == job->failed_at[point] && worse))
        job->failed_at[point] = q->segment[l], job->status[point] = status;
    q->point[l] = -1;
}

/* The grain and the point at a place of the queue: one grain at a block of points, then the next grain, then the next
 * block. Neighbouring points deform alike, and the states of a block stay in the cache. */
static long place_in_queue(const Job *job, long next, long *point) {
    long first = next / (BLOCK * job->grains) * BLOCK, rest = next % (BLOCK * job->grains);
    long size = job->points - first < BLOCK ? job->points - first : BLOCK;
    *point = first + rest % size;
    return rest / size;
}

/* Gives lane l the next grain of the queue. Returns whether there is one. */
static int refill(const Job *job, Queue *q, Lanes *z, int l) {
    while (q->next < job->points * job->grains) {
        long point, grain = place_in_queue(job, q->next, &point);
        const double *state = job->state + point * job->stride + grain * GRAIN;
        double sum = 0.0;
        q->next++;
        if (job->failed_at[point] == 0 && job->status[point] == INVALID) continue;
        for (int k = 0; k < GRAIN; k++) sum += state[k];
        q->point[l] = point, q->grain[l] = grain, q->segment[l] = q->steps[l] = 0;
        if (isfinite(sum)) {
            load_state(z, l, state);
            return 1;
        }
        fail(job, q, l, INVALID);
    }
    return 0;
}

/* Puts the lanes of `fresh` before their present segments. */
static void begin_segments(const Job *job, Queue *q, Lanes *z, I fresh) {
    V first[6], change[6];
    for (int k = 0; k < 6; k++) first[k] = change[k] = all(0.0);
    for (int l = 0; l < LANES; l++) {
        if (!fresh[l]) continue;
        long segment = q->segment[l], point = q->point[l];
        const double *C = job->C + (point * job->instants + segment) * 6, *turn = job->turn + q->grain[l] * 36;
        for (int k = 0; k < 6; k++) first[k][l] = C[k], change[k][l] = C[6 + k] - C[k];
        z->T[l] = job->duration[point * (job->instants - 1) + segment], z->t[l] = 0.0;
        if (q->turned[l] == q->grain[l]) continue;
        for (int k = 0; k < 36; k++) z->turn[k][l] = turn[k];
        q->turned[l] = q->grain[l];
    }
    for (int i = 0; i < 6; i++) {
        V C0 = all(0.0), dC = all(0.0);
        for (int j = 0; j < 6; j++) C0 += z->turn[6 * i + j] * first[j], dC += z->turn[6 * i + j] * change[j];
        z->C0[i] = choose(fresh, C0, z->C0[i]), z->dC[i] = choose(fresh, dC, z->dC[i]);
    }
}

/* H of all lanes in the frame of the sample. */
INLINE void turn_back(const Lanes *z, V *H) {
    V h[6];
    for (int k = 0; k < 6; k++) {
        int i = 3 * ROW[k], j = 3 * COLUMN[k];
        h[k] = z->B[i] * z->B[j] + z->B[i + 1] * z->B[j + 1] + z->B[i + 2] * z->B[j + 2];
        if (k > 2) h[k] *= 2.0; /* C : H is the same in both frames, so H turns back with the transpose */
    }
    for (int j = 0; j < 6; j++) {
        H[j] = all(0.0);
        for (int i = 0; i < 6; i++) H[j] += z->turn[6 * i + j] * h[i];
        if (j > 2) H[j] *= 0.5;
    }
}

/* Keeps what is asked for at the end of a segment, and goes on to the next. Returns whether there is one. */
static int end_segment(const Job *job, Queue *q, const Lanes *z, const V *H, int l) {
    long point = q->point[l], grain = q->grain[l], segments = job->instants - 1;
    long place = (point * segments + q->segment[l]) * job->grains + grain;
    for (int k = 0; k < 6; k++) job->H[place * 6 + k] = H[k][l];
    if (job->history) store_state(z, l, job->history + place * GRAIN);
    q->steps[l] = 0, q->segment[l]++;
    if (q->segment[l] == segments) store_state(z, l, job->state_new + point * job->stride + grain * GRAIN);
    /* where another grain of the point has failed, or its strains are not valid, nobody goes further */
    else if (q->segment[l] < job->failed_at[point] + (job->status[point] != INVALID)) return 1;
    q->point[l] = -1;
    return 0;
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

/* The mean of H over the grains. */
static void average(const Job *job) {
    for (long row = 0; row < job->points * (job->instants - 1); row++) {
        const double *H = job->H + row * job->grains * 6;
        double *mean = job->mean + row * 6;
        for (int k = 0; k < 6; k++) mean[k] = 0.0;
        for (long grain = 0; grain < job->grains; grain++)
            for (int k = 0; k < 6; k++) mean[k] += job->weight[grain] * H[grain * 6 + k];
    }
}

/* Solves the job. */
void solve(const Law *law, const Control *control, Job *job) {
    Lanes z;
    Stage g;
    Queue q;
    I none = all(0.0) > 1.0, fresh = none, live = none;
    memset(&z, 0, sizeof z);
    memset(&g, 0, sizeof g);
    memset(&q, 0, sizeof q);
    for (int l = 0; l < LANES; l++) q.point[l] = q.turned[l] = -1;
    check(job);
    for (;;) {
        for (int l = 0; l < LANES; l++)
            if (q.point[l] < 0) live[l] = fresh[l] = -refill(job, &q, &z, l);
        if (!any(live)) break;
        if (any(fresh)) begin_segments(job, &q, &z, fresh);
        fresh = none;
        I now = live & (z.T <= 0), moving = live & ~now, rejected = none, failed = none;
        if (any(now)) jump(law, &z, now);
        if (any(moving)) {
            update_slots(law, control, &z);
            g.iterations = g.rounds = 0;
            failed = advance(law, control, &z, moving, &g, &rejected);
            job->counts[2] += g.iterations, job->counts[3] += g.rounds * LANES;
        }
        V H[6];
        I ended = live & ~failed & (z.t >= z.T);
        if (any(ended)) turn_back(&z, H);
        for (int l = 0; l < LANES; l++) {
            if (!live[l]) continue;
            if (moving[l]) {
                job->solves[q.point[l]] += 2;
                job->counts[0]++, job->counts[1] -= rejected[l];
            }
            if (failed[l])
                fail(job, &q, l, STEP_TOO_SMALL);
            else if (ended[l])
                fresh[l] = -end_segment(job, &q, &z, H, l);
            else if (++q.steps[l] > control->most_steps)
                fail(job, &q, l, TOO_MANY_STEPS);
        }
    }
    average(job);
}
