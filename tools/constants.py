#!/usr/bin/env python3
"""Derive the constants of kernels/constants.h: table, polynomial, reduction, centre. Needs mpmath and NumPy."""
import sys

import mpmath as mp
import numpy as np

mp.mp.dps = 40


def float_hex(value):
    return float(np.float32(float(value))).hex()


ENTRIES = 16


def worst(c):
    """For factors c in [2^23, 2^24): half the spread of table error and last rounding together, in units of 2^-24.

    The last rounding of c 2^(k/16) exp(r), |r| <= ln(2)/32, is 1/m for a result m in [1, 2) and again 1 just above 2.
    """
    half_width = np.log(2) / (2 * ENTRIES)
    high, low = np.full(len(c), -9.0), np.full(len(c), 9.0)
    for k in range(ENTRIES):
        exact = c * np.longdouble(2) ** (np.longdouble(k) / ENTRIES)
        ulp = np.where(exact >= 2 ** 24, 2.0, 1.0)
        error = ((np.rint(exact / ulp) * ulp - exact) / exact * 2 ** 24).astype(float)
        m = (exact / 2 ** 23).astype(float)
        least, most = m * np.exp(-half_width), m * np.exp(half_width)
        rounding = np.where(least >= 2, 2 / least, np.where((most >= 2) | (least < 1), 1.0, 1 / least))
        high, low = np.maximum(high, error + rounding), np.minimum(low, error - rounding)
    return (high - low) / 2


def table():
    """The factor in [1, 2^(1/16)), in sixteenths of an ULP, with the smallest worst(); its table and that."""
    best = None
    for part in np.arange(-8, 8) / 16:
        c = np.arange(1 << 23, int((1 << 23) * 2 ** (1 / ENTRIES)) + 1).astype(np.longdouble) + np.longdouble(part)
        spreads = worst(c)
        i = int(np.argmin(spreads))
        if best is None or spreads[i] < best[0]:
            best = (float(spreads[i]), c[i])
    spread, c = best
    return [int(np.rint(c * np.longdouble(2) ** (np.longdouble(k) / ENTRIES))) for k in range(ENTRIES)], spread


def polynomial(half_width, degree=3):
    """Remez: p minimising max |p(r) exp(-r) - 1| on [-half_width, half_width]; returned with p(0) scaled to 1."""
    n = degree + 2
    nodes = [-half_width * mp.cos(mp.pi * i / (n - 1)) for i in range(n)]
    grid = [half_width * (mp.mpf(i) / 200 - 1) for i in range(401)]
    for _ in range(20):
        matrix, ones = mp.matrix(n, n), mp.matrix([1] * n)
        for i, r in enumerate(nodes):
            for j in range(degree + 1):
                matrix[i, j] = r ** j * mp.exp(-r)
            matrix[i, degree + 1] = (-1) ** i
        solution = mp.lu_solve(matrix, ones)
        errors = [sum(solution[j] * r ** j for j in range(degree + 1)) * mp.exp(-r) - 1 for r in grid]
        peaks = []
        for r, e in zip(grid, errors):
            if peaks and mp.sign(e) == mp.sign(peaks[-1][1]):
                if abs(e) > abs(peaks[-1][1]):
                    peaks[-1] = (r, e)
            else:
                peaks.append((r, e))
        if len(peaks) != n:
            sys.exit("Remez exchange lost an extremum")
        nodes = [r for r, _ in peaks]
    return [solution[j] / solution[0] for j in range(degree + 1)], max(abs(e) for e in errors)


def main():
    entries, spread = table()
    for k, entry in enumerate(entries):
        print(f"T[{k:2}]        bits 0x{0x3f800000 | entry & 0x7fffff:08x}   {float_hex(mp.mpf(entry) / 2 ** 23)}")
    usual = float(worst(np.array([1 << 23], dtype=np.longdouble))[0])
    print(f"             table and last rounding within {spread:.4f} * 2^-24; {usual:.4f} with T[0] = 1")
    step = mp.log(2) / ENTRIES
    high = mp.mpf(float(np.float32(float(step))))
    print(f"16 log2(e)   {float_hex(1 / step)}")
    print(f"ln(2)/16     {float_hex(high)} + {float_hex(step - high)}")
    coefficients, error = polynomial(step / 2 * mp.mpf("1.0006"))
    print(f"C1, C2, C3   {', '.join(float_hex(c) for c in coefficients[1:])}   error {mp.nstr(error * 2 ** 24, 3)} * 2^-24")
    # Halfway between the extremes of the finished float function over exp(x), found over every float in the window.
    centre = mp.mpf(float.fromhex("0x1.04eb5009959dep+0"))
    print(f"K, ln(K)     {float(centre).hex()}, {float(mp.log(centre)).hex()}")


main()
