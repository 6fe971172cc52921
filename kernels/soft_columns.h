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
    int32_t y[VW]; /* -1: none */
    double Q[VW], P[VW];
    double N[VW];
    float N_hi[VW], N_lo[VW];
};

/* Where logits or probabilities lie, and how far ahead they are fetched if that is in planes. */
struct shares_place {
    struct column_place at;
    struct ahead ahead;
};

static ALWAYS_INLINE void load_shares(const struct shares_place *from, size_t j, size_t count, vf column[4])
{
    load_columns(from->at, j, count, column);
    if (!from->at.is_rows)
        prefetch_columns(from->at, j, count, from->ahead);
}

/* Takes the probabilities of classes j to j + count - 1, for a constant count <= 4. first: how many classes are left
   from the first dominant one on; 0 where there is none yet. (A NaN counts for one, but columns do not take a row whose
   shares are not finite.) */
static ALWAYS_INLINE void take_shares_some(const struct shares_place *q, size_t classes, size_t j, size_t count,
                                           struct column_shares *s, vf *first)
{
    vf share[4];
    load_shares(q, j, count, share);
    for (size_t i = 0; i < count; ++i) {
        const vf left = vset((float)(classes - (j + i)));
        vstore(s->q[j + i], share[i]);
        *first = vmax(*first, vkeep_above(left, share[i], vset(DOMINANT)));
    }
}

static ALWAYS_INLINE void take_column_shares(const struct shares_place *q, size_t classes, struct column_shares *s)
{
    vf first = vset(0.0f);
    size_t j = 0;
    for (; j + 4 <= classes; j += 4)
        take_shares_some(q, classes, j, 4, s, &first);
    if (classes - j == 3)
        take_shares_some(q, classes, j, 3, s, &first);
    else if (classes - j == 2)
        take_shares_some(q, classes, j, 2, s, &first);
    else if (classes - j == 1)
        take_shares_some(q, classes, j, 1, s, &first);
    float left[VW];
    vstore(left, first);
    for (int i = 0; i < VW; ++i)
        s->y[i] = left[i] == 0 ? -1 : (int32_t)classes - (int32_t)left[i];
}

/* Adds classes j to j + count - 1, for a constant count <= 4, of rows without class weights and pivots. */
static ALWAYS_INLINE void add_shares_some(const struct shares_place *x, size_t j, size_t count,
                                          const struct column_shares *s, double (*Q)[VW], double (*P)[VW])
{
    static const double zeros[VW];
    const vi y = viload(s->y);
    vf column[4];
    load_shares(x, j, count, column);
    for (size_t i = 0; i < count; ++i) {
        const size_t lane = (j + i) % XENT_LANES;
        const bool begins = j < XENT_LANES;
        float logits[VW], share[VW];
        vstore(logits, column[i]);
        vstore(share, vdrop_where(vload(s->q[j + i]), y, (int)(j + i)));
        const vw q = vw_widen(share);
        const vw q_sum = vw_plus(vw_load(begins ? zeros : Q[lane]), q);
        const vw p_sum = vw_plus_exact(vw_load(begins ? zeros : P[lane]), q, vw_widen(logits));
        vw_store(Q[lane], &q_sum);
        vw_store(P[lane], &p_sum);
    }
}

static ALWAYS_INLINE void add_column_shares(const struct shares_place *x, size_t classes, const struct column_shares *s,
                                            double (*Q)[VW], double (*P)[VW])
{
    size_t j = 0;
    for (; j + 4 <= classes; j += 4)
        add_shares_some(x, j, 4, s, Q, P);
    if (classes - j == 3)
        add_shares_some(x, j, 3, s, Q, P);
    else if (classes - j == 2)
        add_shares_some(x, j, 2, s, Q, P);
    else if (classes - j == 1)
        add_shares_some(x, j, 1, s, Q, P);
}

/* The same in every case: a probability of 0 makes nothing of any logit. */
static ALWAYS_INLINE void add_column_shares_general(struct column_place x, size_t classes, const float *w,
                                                    const double *pivot, const struct column_shares *s, double (*Q)[VW],
                                                    double (*P)[VW])
{
    for (size_t j = 0; j < classes; ++j) {
        const size_t lane = j % XENT_LANES;
        for (int i = 0; i < VW; ++i) {
            const double a = s->y[i] == (int32_t)j ? 0 : (double)s->q[j][i] * (w ? (double)w[j] : 1);
            Q[lane][i] = (j < XENT_LANES ? 0 : Q[lane][i]) + a;
            P[lane][i] = (j < XENT_LANES ? 0 : P[lane][i]) +
                         (a != 0 ? a * ((double)column_entry(x, (size_t)i, j) - pivot[i]) : 0);
        }
    }
}

static ALWAYS_INLINE void columns_shares(const struct shares_place *x, const struct shares_place *q, size_t classes,
                                         const float *w, const double *pivot, struct column_shares *s)
{
    const size_t lanes = classes < XENT_LANES ? classes : XENT_LANES;
    double Q[XENT_LANES][VW] __attribute__((aligned(64))), P[XENT_LANES][VW] __attribute__((aligned(64)));
    take_column_shares(q, classes, s);
    int general = w != NULL;
    for (int i = 0; i < VW; ++i)
        general |= pivot[i] != 0;
    if (!general) {
        add_column_shares(x, classes, s, Q, P);
        fold_column_lanes(Q, lanes, s->Q);
        fold_column_lanes(P, lanes, s->P);
        for (int i = 0; i < VW; ++i)
            general |= s->P[i] != s->P[i]; /* a factor of 0 has made a NaN of a logit of -inf */
    }
    if (general) {
        add_column_shares_general(x->at, classes, w, pivot, s, Q, P);
        fold_column_lanes(Q, lanes, s->Q);
        fold_column_lanes(P, lanes, s->P);
    }
}

static NOINLINE void columns_shares_of_rows(const float *const *x, const float *const *q, size_t classes,
                                            const float *w, const double *pivot, struct column_shares *s)
{
    const struct shares_place x_place = {.at = columns_of_rows(x, NULL)}, q_place = {.at = columns_of_rows(q, NULL)};
    columns_shares(&x_place, &q_place, classes, w, pivot, s);
}

/* Of whole neighbours, whose logits and probabilities begin there; those of rows ahead further are fetched. */
static NOINLINE void columns_shares_of_planes(const float *x, size_t x_stride, const float *q, size_t q_stride,
                                              size_t ahead, size_t classes, const float *w, const double *pivot,
                                              struct column_shares *s)
{
    const struct shares_place x_place = {{.is_whole = true, .x_plane = x, .x_stride = x_stride}, {.next = ahead}};
    const struct shares_place q_place = {{.is_whole = true, .x_plane = q, .x_stride = q_stride}, {.next = ahead}};
    columns_shares(&x_place, &q_place, classes, w, pivot, s);
}

/* Turns probabilities into what they take off, N q_j w_j, where struct taken has no other way. */
static NOINLINE void columns_take_general(struct column_shares *s, size_t classes, const float *w)
{
    for (size_t j = 0; j < classes; ++j)
        for (int i = 0; i < VW; ++i)
            s->q[j][i] = f64_to_f32(s->N[i] * ((double)s->q[j][i] * (double)w[j]));
}

#endif
