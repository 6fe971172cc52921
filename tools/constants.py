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


def minimax(exact, fixed, powers, low, high, points=400):
    """Remez: the c minimising max |(fixed(x) + sum c_j x^powers_j) / exact(x) - 1| on [low, high], and that maximum."""
    n = len(powers) + 1
    grid = [low + (high - low) * (1 - mp.cos(mp.pi * (i + mp.mpf(1) / 2) / points)) / 2 for i in range(points)]
    nodes = [grid[(2 * i + 1) * points // (2 * n)] for i in range(n)]
    for _ in range(20):
        matrix, missing = mp.matrix(n, n), mp.matrix(n, 1)
        for i, x in enumerate(nodes):
            for j, power in enumerate(powers):
                matrix[i, j] = x ** power / exact(x)
            matrix[i, n - 1] = (-1) ** i
            missing[i] = 1 - fixed(x) / exact(x)
        c = list(mp.lu_solve(matrix, missing))[:-1]
        errors = [(fixed(x) + sum(c_j * x ** power for c_j, power in zip(c, powers))) / exact(x) - 1 for x in grid]
        peaks = []
        for x, e in zip(grid, errors):
            if peaks and mp.sign(e) == mp.sign(peaks[-1][1]):
                if abs(e) > abs(peaks[-1][1]):
                    peaks[-1] = (x, e)
            else:
                peaks.append((x, e))
        if len(peaks) != n:
            sys.exit("Remez exchange lost an extremum")
        nodes = [x for x, _ in peaks]
    return c, max(abs(e) for e in errors)


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
    half = step / 2 * mp.mpf("1.0006")
    c, error = minimax(mp.exp, lambda r: 0, range(4), -half, half)
    print(f"C1, C2, C3   {', '.join(float_hex(c_j / c[0]) for c_j in c[1:])}   error {mp.nstr(error * 2 ** 24, 3)} * 2^-24")
    half = mp.log(2) / 2 * mp.mpf("1.001")
    c, error = minimax(mp.exp, lambda r: 1 + r, range(2, 9), -half, half)
    print(f"E2 ... E8    {', '.join(float(c_j).hex() for c_j in c)}   error 2^{mp.nstr(mp.log(error, 2), 4)}")
    c, error = minimax(lambda f: 2 * mp.atanh(f), lambda f: 2 * f, range(3, 10, 2), mp.mpf(2) ** -30, mp.mpf("0.1716"))
    print(f"A3 ... A9    {', '.join(float(c_j).hex() for c_j in c)}   error 2^{mp.nstr(mp.log(error, 2), 4)}")
    c, error = minimax(mp.exp, lambda r: 1 + r, range(2, 11), -half, half)
    print(f"F2 ... F10   {', '.join(float(c_j).hex() for c_j in c)}   error 2^{mp.nstr(mp.log(error, 2), 4)}")
    c, error = minimax(lambda f: 2 * mp.atanh(f), lambda f: 2 * f, range(3, 14, 2), mp.mpf(2) ** -30, mp.mpf("0.1716"))
    print(f"B3 ... B13   {', '.join(float(c_j).hex() for c_j in c)}   error 2^{mp.nstr(mp.log(error, 2), 4)}")
    # Halfway between the extremes of the finished float function over exp(x), found over every float in the window.
    centre = mp.mpf(float.fromhex("0x1.04eb5009959dep+0"))
    print(f"K, ln(K)     {float(centre).hex()}, {float(mp.log(centre)).hex()}")


main()
