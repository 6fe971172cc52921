# shellcheck shell=bash
# What the scripts share: build directories that configure themselves, and meson's tests with a closing line.

root=$(cd -- "$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")/.." >/dev/null && pwd)

say() {
    printf '%s\n' "$*" >&2
}

# quietly COMMAND...: its output is shown only if it fails.
quietly() {
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 </dev/null || status=$?
    if [ "$status" -ne 0 ]; then
        cat -- "$log" >&2
        say "failed: $*"
    fi
    rm -f -- "$log"
    return "$status"
}

# configure BUILD ARGUMENT...: set a build directory up, unless it is already.
configure() {
    local build=$1
    shift
    [ -e "$build/build.ninja" ] || quietly meson setup "$build" "$root" "$@"
}

# known_build BUILD: fail unless it is set up.
known_build() {
    [ -e "$1/build.ninja" ] && return
    say "tools/$(basename -- "$0"): $1 is no build directory"
    return 2
}

# enable BUILD OPTION: make sure that a boolean option is true.
enable() {
    local value
    value=$(meson introspect --buildoptions "$1" |
        python3 -c 'import json, sys; print(*(o["value"] for o in json.load(sys.stdin) if o["name"] == sys.argv[1]))' "$2")
    [ "$value" = True ] || quietly meson configure "$1" "-D$2=true"
}

# compile BUILD [TARGET...]
compile() {
    local build=$1
    shift
    quietly meson compile -C "$build" "$@"
}

passed=0 failed=0 skipped=0

# count_tests LOG: add the numbers that end the output of meson test to the above; false if it does not have them.
count_tests() {
    local counts add_passed add_failed add_skipped
    counts=$(awk -F: '
        $1 == "Ok" { passed = $2; failed = skipped = 0; found = 1 }
        $1 == "Expected Fail" { passed += $2 }
        $1 == "Fail" || $1 == "Unexpected Pass" || $1 == "Timeout" { failed += $2 }
        $1 == "Skipped" { skipped += $2 }
        END { if (found) print passed + 0, failed + 0, skipped + 0 }' "$1")
    [ -n "$counts" ] || return 1
    read -r add_passed add_failed add_skipped <<<"$counts"
    passed=$((passed + add_passed)) failed=$((failed + add_failed)) skipped=$((skipped + add_skipped))
}

# run_tests BUILD ARGUMENT...: meson test, counted. Fails as meson does, and if no test ran.
run_tests() {
    local build=$1 log status=0
    shift
    log=$(mktemp)
    meson test -C "$build" --print-errorlogs "$@" </dev/null | tee -- "$log" || status=$?
    if ! count_tests "$log"; then
        say "no test ran"
        [ "$status" -ne 0 ] || status=1
    fi
    rm -f -- "$log"
    return "$status"
}

print_totals() {
    if [ "$skipped" -gt 0 ]; then
        printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
    else
        printf '%d passed, %d failed\n' "$passed" "$failed"
    fi
}
