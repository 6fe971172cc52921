/*
 * The errors of the calls that the bench times, in ULP, against a reference in double, on the first rows of
 * each shape (all rows are drawn alike).
 *
 *     s'    = sum over j != y of exp(x_j - m)             m the largest logit, so that s' does not overflow
 *     loss  = log1p(s' / exp(x_y - m))
 *     grad  = exp(x_j - m) / s,  for the target -s' / s   s = s' + exp(x_y - m)
 *
 * No step subtracts numbers that were rounded before, so that its own error is below a thousandth of a float's ULP. A
 * row of masked classes only gives NaN here as there; an ignored row gives 0.
 */
#include "bench.h"

#include <xent/xent.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* As many rows of a shape are checked as have this many logits together. */
static const size_t checked_logits = 2u << 20;

/* The exact results of a batch. */
struct reference {
    double *loss; /* [rows] */
    double *grad; /* [rows][classes] */
};

/* |got - exact| in units of the last place of exact as a float. NaN in one of them only counts as infinite. */
static double ulps(float got, double exact)
{
    if (isnan(exact))
        return isnan(got) ? 0 : (double)INFINITY;
    int exponent = exact == 0.0 ? -126 : ilogb(exact);
    double error = fabs((double)got - exact) / ldexp(1.0, (exponent < -126 ? -126 : exponent) - 23);
    return error >= 0.0 ? error : (double)INFINITY;
}

/* grad has a class after the other. */
static void exact_row(const float *x, size_t stride, size_t classes, size_t target, double *loss, double *grad)
{
    float m = x[0];
    for (size_t j = 1; j < classes; j++)
        m = x[j * stride] > m ? x[j * stride] : m;
    long double others = 0;
    for (size_t j = 0; j < classes; j++) {
        grad[j] = exp((double)x[j * stride] - (double)m);
        if (j != target)
            others += (long double)grad[j];
    }
    double sum = (double)(others + (long double)grad[target]);
    *loss = log1p((double)others / grad[target]);
    for (size_t j = 0; j < classes; j++)
        grad[j] = (j == target ? -(double)others : grad[j]) / sum;
}

static struct reference make_reference(struct bench_shape batch, const struct bench_data *data)
{
    struct reference r = {calloc(batch.rows, sizeof *r.loss), calloc(batch.rows * batch.classes, sizeof *r.grad)};
    if (!r.loss || !r.grad)
        bench_fail("no memory for the reference of %zu rows of %zu classes", batch.rows, batch.classes);
    for (size_t i = 0; i < batch.rows; i++)
        if (data->targets[i] >= 0)
            exact_row(data->logits + bench_row_start(batch, i), bench_class_stride(batch), batch.classes,
                      (size_t)data->targets[i], &r.loss[i], r.grad + i * batch.classes);
    return r;
}

/* Prints the largest error of the losses and, unless grad is NULL, of the gradient's entries. */
static void check(struct bench_shape batch, const struct reference *exact, const float *logits, float *grad,
                  const struct bench_data *data)
{
    bench_call(batch, data, logits, grad, 1);
    double loss_error = 0, grad_error = 0;
    for (size_t i = 0; i < batch.rows; i++)
        loss_error = fmax(loss_error, ulps(data->loss[i], exact->loss[i]));
    for (size_t i = 0; grad && i < batch.rows; i++)
        for (size_t j = 0; j < batch.classes; j++)
            grad_error = fmax(grad_error, ulps(grad[bench_row_start(batch, i) + j * bench_class_stride(batch)],
                                               exact->grad[i * batch.classes + j]));
    printf("\t%zu\t%.3f\t", batch.rows, loss_error);
    printf(grad ? "%.3f\n" : "-\n", grad_error);
    fflush(stdout);
}

/* The first rows of a shape. */
static struct bench_layout checked(struct bench_shape shape)
{
    struct bench_shape batch = {checked_logits / shape.classes, shape.classes, 0};
    if (batch.rows < 1)
        batch.rows = 1;
    if (batch.rows > shape.rows)
        batch.rows = shape.rows;
    batch.inner = shape.inner ? batch.rows : 0;
    return bench_lay_out(batch, 0);
}

static void check_shape(struct bench_shape shape, enum bench_kind kind, const struct bench_selection *selection)
{
    const struct bench_layout layout = checked(shape);
    const struct bench_shape batch = layout.shape;
    const struct bench_data data = bench_make_data(&layout, kind);
    struct reference exact = make_reference(batch, &data);
    const struct bench_shape_text name = bench_shape_name(shape);
    for (size_t k = 0; k < selection->isa_count; k++) {
        const char *isa = selection->isas[k];
        if (xent_select(isa) != XENT_OK)
            bench_fail("the kernel %s cannot be selected", isa);
        printf("%s\t%s\t%s\tforward", isa, name.text, bench_kind_name(kind));
        check(batch, &exact, data.logits, NULL, &data);
        printf("%s\t%s\t%s\tout-of-place", isa, name.text, bench_kind_name(kind));
        check(batch, &exact, data.logits, data.grad, &data);
        printf("%s\t%s\t%s\tin-place", isa, name.text, bench_kind_name(kind));
        bench_restore(&data, &layout, 1, 1);
        check(batch, &exact, data.work, data.work, &data);
    }
    free(exact.loss);
    free(exact.grad);
}

void bench_errors(const struct bench_selection *selection)
{
    for (size_t i = 0; i < selection->shape_count; i++) {
        const struct bench_layout layout = checked(selection->shapes[i]);
        bench_reserve(&layout);
    }
    printf("isa\tshape\tdata\tmode\trows_checked\tloss_ulp\tgrad_ulp\n");
    for (size_t i = 0; i < selection->shape_count; i++)
        for (size_t k = 0; k < selection->kind_count; k++)
            check_shape(selection->shapes[i], selection->kinds[k], selection);
}
