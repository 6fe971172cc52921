/* Part of kernels/algorithm.h: what soft.h sums over a row, for the rows of columns.h. */
#ifndef XENT_KERNELS_SOFT_COLUMNS_H
#define XENT_KERNELS_SOFT_COLUMNS_H

/* The sums of w_j x_j. */
static NOINLINE void columns_dot(struct column_place at, size_t classes, const float *w, double *D)
{
    const size_t lanes = classes < XENT_LANES ? classes : XENT_LANES;
    static const double zeros[VW];
    vw sum[XENT_LANES];
    for (size_t l = 0; l < lanes; ++l)
        sum[l] = vw_load(zeros);
    for (size_t j = 0; j < classes; j += 4) {
        vf column[4];
        load_columns(at, j, columns_left(classes, j), column);
        for (size_t i = j; i < classes && i < j + 4; ++i) {
            vw *lane = &sum[i % XENT_LANES];
            float logits[VW], factor[VW];
            vstore(logits, column[i - j]);
            vstore(factor, vset(w[i]));
            if (w[i] != 0)
                *lane = vw_plus_exact(*lane, vw_widen(factor), vw_widen(logits));
        }
    }
    for (size_t half = XENT_LANES / 2; half > 0; half /= 2)
        for (size_t l = 0; l < half && l + half < lanes; ++l)
            sum[l] = vw_plus(sum[l], sum[l + half]);
    vw_store(D, &sum[0]);
}

/* The sums of logits wherever they lie. */
static NOINLINE void columns_logit_sum(struct column_place at, size_t classes, double *D)
{
    struct column_logits sums;
    sums.n = viset(0);
    vi stray = viset(0);
    for (size_t j = 0; j < classes; j += 4) {
        vf column[4];
        load_columns(at, j, columns_left(classes, j), column);
        for (size_t i = j; i < classes && i < j + 4; ++i) {
            const vf t = exp_round(column[i - j]);
            stray = vior(stray, vstray(t, t, rounder_bits));
            column_logits_add(&sums, i, t, exp_reduce(column[i - j], t));
        }
    }
    if (!vany(stray, ~(WINDOW_SIZE - 1))) {
        column_logits_end(&sums, classes, D);
        return;
    }
    for (size_t i = 0; i < VW; ++i) {
        float row[COLUMNS_MAX];
        struct logit_sum sum;
        for (size_t j = 0; j < classes; ++j)
            row[j] = column_entry(at, i, j);
        logit_sum_start(&sum);
        logit_sum_until(&sum, row, classes);
        D[i] = logit_sum_end(&sum);
    }
}

/* The probabilities of a block of rows, what distribution_add_probabilities asks of each row, and struct taken. */
struct column_shares {
    float (*q)[VW];
    double y[VW], x_y[VW]; /* y -1: none */
    double Q[VW], P[VW];
    double N[VW];
    float N_hi[VW], N_lo[VW];
};

/* Adds class j to the sums of its lane, for logits x. */
static ALWAYS_INLINE void add_shares(struct column_shares *s, size_t j, const float *x, double w, const double *pivot,
                                     double *Q, double *P)
{
    for (int i = 0; i < VW; ++i) {
        const double q = (double)s->q[j][i], x_j = (double)x[i];
        const bool is_y = is_dominant(q) & (s->y[i] < 0);
        const double a = is_y ? 0 : q * w;
        s->y[i] = is_y ? (double)j : s->y[i];
        s->x_y[i] = is_y ? x_j : s->x_y[i];
        Q[i] = (j < XENT_LANES ? 0 : Q[i]) + a;
        P[i] = (j < XENT_LANES ? 0 : P[i]) + (a != 0 ? a * (x_j - pivot[i]) : 0);
    }
}

static NOINLINE void columns_shares(const float *const *x, const float *const *q, size_t classes, const float *w,
                                    const double *pivot, struct column_shares *s)
{
    const size_t lanes = classes < XENT_LANES ? classes : XENT_LANES;
    double Q[XENT_LANES][VW], P[XENT_LANES][VW];
    for (int i = 0; i < VW; ++i) {
        s->y[i] = -1;
        s->x_y[i] = 0;
    }
    for (size_t j = 0; j < classes; j += 4) {
        vf column[4], share[4];
        vload_columns(x, j, columns_left(classes, j), column);
        vload_columns(q, j, columns_left(classes, j), share);
        for (size_t i = 0; i < columns_left(classes, j); ++i) {
            float logits[VW];
            vstore(logits, column[i]);
            vstore(s->q[j + i], share[i]);
            add_shares(s, j + i, logits, w ? (double)w[j + i] : 1, pivot, Q[(j + i) % XENT_LANES],
                       P[(j + i) % XENT_LANES]);
        }
    }
    for (size_t half = XENT_LANES / 2; half > 0; half /= 2)
        for (size_t l = 0; l < half && l + half < lanes; ++l)
            for (int i = 0; i < VW; ++i) {
                Q[l][i] += Q[l + half][i];
                P[l][i] += P[l + half][i];
            }
    memcpy(s->Q, Q[0], sizeof s->Q);
    memcpy(s->P, P[0], sizeof s->P);
}

/* Turns probabilities into what they take off, N q_j w_j, where struct taken has no other way. */
static NOINLINE void columns_take_general(struct column_shares *s, size_t classes, const float *w)
{
    for (size_t j = 0; j < classes; ++j)
        for (int i = 0; i < VW; ++i)
            s->q[j][i] = f64_to_f32(s->N[i] * ((double)s->q[j][i] * (double)w[j]));
}

#endif
