/*
 * The whole criterion: what every option of the general call means, together and apart.
 */
#include "criterion.h"

#include <float.h>
#include <math.h>

bool dtype_accepted(xent_dtype dtype)
{
    /* Of no rows: nothing but the options is looked at. */
    xent_problem p = XENT_PROBLEM_INIT;
    p.dtype = dtype;
    p.reduction = XENT_NONE;
    return xent_cross_entropy(&p) == XENT_OK;
}

const char *dtype_name(xent_dtype dtype)
{
    return dtype == XENT_F64 ? "double" : "float";
}

size_t dtype_size(xent_dtype dtype)
{
    return dtype == XENT_F64 ? sizeof(double) : sizeof(float);
}

double number_get(xent_dtype dtype, const void *array, size_t i)
{
    return dtype == XENT_F64 ? ((const double *)array)[i] : (double)((const float *)array)[i];
}

void number_put(xent_dtype dtype, void *array, size_t i, double value)
{
    if (dtype == XENT_F64)
        ((double *)array)[i] = value;
    else
        ((float *)array)[i] = (float)value;
}

double number_ulp(xent_dtype dtype, double value)
{
    const int digits = dtype == XENT_F64 ? DBL_MANT_DIG : FLT_MANT_DIG;
    const int least = dtype == XENT_F64 ? DBL_MIN_EXP : FLT_MIN_EXP;
    int exponent = least;
    if (value != 0)
        frexp(value, &exponent);
    return ldexp(1, (exponent > least ? exponent : least) - digits);
}

void for_each_kernel(void (*test)(const char *isa, xent_dtype dtype))
{
    for (const char *const *isa = xent_isas(); *isa; isa++) {
        use_kernel(*isa);
        test(*isa, XENT_F32);
        if (dtype_accepted(XENT_F64))
            test(*isa, XENT_F64);
    }
}

int main(void)
{
    Suite *suite = suite_create("criterion");
    add_golden_tests(add_case(suite, "golden vectors"));
    add_property_tests(add_case(suite, "properties"));
    add_status_tests(add_case(suite, "statuses"));
    add_large_tests(add_case(suite, "large"));
    return run_suite(suite);
}
