#!/bin/sh
# Copyright: driftguard.workers contributors
# SPDX-License-Identifier: MIT
#
# Startup guard of a worker, for images without Python: proves which commit it is before it may connect to anything.
#
#     sh version_guard.sh [--record DIR] [--image-file FILE] -- COMMAND [ARG...]
#
# It does and says what version_guard.py does (see docs/guards.md); the cases that hold the two together are in
# contract.json. Shell builtins only: nothing but the command itself is ever started, and no file is ever sourced.
# Every variable begins with __dg_, so that none of the worker's own can be changed on its way through.

set +aex
set -fu
unset -f read printf test [ # a shell that imports functions from the environment must not import these

__dg_mount=/opt/driftguard/guard
__dg_tab='	'
__dg_newline='
'
__dg_plain='ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 ._:/@+,=-'
__dg_hex='[0123456789abcdef]'
__dg_hex4=$__dg_hex$__dg_hex$__dg_hex$__dg_hex
__dg_hex12=$__dg_hex4$__dg_hex4$__dg_hex4
__dg_hex40=$__dg_hex12$__dg_hex12$__dg_hex12$__dg_hex4

__dg_usage() {
    printf '%s\n' \
        'usage: version_guard [--check] [--record DIR] [--image-file FILE] -- COMMAND [ARG...]' \
        'Proves that this worker may start here, then becomes COMMAND.' \
        '  --check            check only; COMMAND may be left out' \
        '  --record DIR       directory of the host record (default: /opt/driftguard/guard, else beside the guard)' \
        '  --image-file FILE  file baked into the image (default: /etc/driftguard/image.json)' \
        "Exit status: 1 refused, 64 wrong usage, 126 command not executable, 127 command not found, else the command's own."
}

__dg_misused() {
    __dg_fault='no command after --'
    if [ "$#" -gt 0 ]; then
        __dg_show "$1"
        __dg_fault="unknown option, or option without its value: $__dg_shown"
    fi
    printf 'version_guard: %s\n' "$__dg_fault" >&2
    __dg_usage >&2
    exit 64
}

# Sets __dg_shown to at most 80 bytes of $1, a value nobody vouches for; what could forge a log line becomes one
# question mark.
__dg_show() {
    case $1 in
    *[!$__dg_plain]*) ;;
    *) [ "${#1}" -gt 80 ] || {
        __dg_shown=$1
        return
    } ;;
    esac
    __dg_rest=$(printf '%.80s|' "$1")
    __dg_rest=${__dg_rest%?}
    __dg_shown=
    while [ -n "$__dg_rest" ]; do
        __dg_tail=${__dg_rest#?}
        __dg_head=${__dg_rest%"$__dg_tail"}
        case $__dg_head in
        [$__dg_plain]) __dg_shown=$__dg_shown$__dg_head ;;
        *) __dg_shown=${__dg_shown%'?'}'?' ;;
        esac
        __dg_rest=$__dg_tail
    done
    [ "${#1}" -le 80 ] || __dg_shown=$__dg_shown...
}

# Names a violated rule: title, then lines. Ends the process where the rules are enforced; returns 1 after a warning.
__dg_refuse() {
    if [ -n "$__dg_enforced" ]; then
        printf '[version] FATAL: %s\n' "$1" >&2
        shift
        printf '[version] %s\n' "$@" >&2
        exit 1
    fi
    __dg_clean=
    __dg_title=${1%?}
    printf '[version] WARNING: %s (not enforced outside production)\n' "${__dg_title% in production}" >&2
    return 1
}

# Sets __dg_runner to the first development runner among the words of $1, the order being that of DEV_RUNNERS in
# version_guard.py.
__dg_find_runner() {
    __dg_s=" $__dg_tab$__dg_newline"'/=,:;&|()<>"'\''`@{}[]\$'
    case " $1 " in
    *["$__dg_s"]tsx["$__dg_s"]*) __dg_runner=tsx ;;
    *["$__dg_s"]ts-node["$__dg_s"]*) __dg_runner=ts-node ;;
    *["$__dg_s"]ts-node-dev["$__dg_s"]*) __dg_runner=ts-node-dev ;;
    *["$__dg_s"]ts-node-esm["$__dg_s"]*) __dg_runner=ts-node-esm ;;
    *["$__dg_s"]ts-node-script["$__dg_s"]*) __dg_runner=ts-node-script ;;
    *["$__dg_s"]ts-node-cwd["$__dg_s"]*) __dg_runner=ts-node-cwd ;;
    *["$__dg_s"]ts-node-transpile-only["$__dg_s"]*) __dg_runner=ts-node-transpile-only ;;
    *["$__dg_s"]ts-script["$__dg_s"]*) __dg_runner=ts-script ;;
    *["$__dg_s"]tsnd["$__dg_s"]*) __dg_runner=tsnd ;;
    *["$__dg_s"]nodemon["$__dg_s"]*) __dg_runner=nodemon ;;
    *["$__dg_s"]node-dev["$__dg_s"]*) __dg_runner=node-dev ;;
    *["$__dg_s"]vite-node["$__dg_s"]*) __dg_runner=vite-node ;;
    *["$__dg_s"]babel-node["$__dg_s"]*) __dg_runner=babel-node ;;
    *["$__dg_s"]swc-node["$__dg_s"]*) __dg_runner=swc-node ;;
    *["$__dg_s"]esbuild-register["$__dg_s"]*) __dg_runner=esbuild-register ;;
    *["$__dg_s"]esbuild-runner["$__dg_s"]*) __dg_runner=esbuild-runner ;;
    *["$__dg_s"]esno["$__dg_s"]*) __dg_runner=esno ;;
    *["$__dg_s"]watchfiles["$__dg_s"]*) __dg_runner=watchfiles ;;
    *["$__dg_s"]-mwatchfiles["$__dg_s"]*) __dg_runner=-mwatchfiles ;;
    *["$__dg_s"]watchmedo["$__dg_s"]*) __dg_runner=watchmedo ;;
    *["$__dg_s"]watchdog.watchmedo["$__dg_s"]*) __dg_runner=watchdog.watchmedo ;;
    *["$__dg_s"]-mwatchdog.watchmedo["$__dg_s"]*) __dg_runner=-mwatchdog.watchmedo ;;
    *["$__dg_s"]--reload["$__dg_s"]*) __dg_runner=--reload ;;
    *["$__dg_s"]--watch["$__dg_s"]*) __dg_runner=--watch ;;
    *["$__dg_s"]--watch-path["$__dg_s"]*) __dg_runner=--watch-path ;;
    *["$__dg_s"]flask["$__dg_s"]*)
        case " $1 " in
        *["$__dg_s"]--debug["$__dg_s"]*) __dg_runner='flask --debug' ;;
        *) return 1 ;;
        esac
        ;;
    *) return 1 ;;
    esac
}

__dg_check_runner() {
    __dg_place='the command'
    __dg_find_runner "$*" || {
        __dg_place=NODE_OPTIONS
        __dg_find_runner "${NODE_OPTIONS-}" || return 0
    }
    __dg_refuse "Running via $__dg_runner in production!" \
        '  Expected: the built program itself, started without a development runner' \
        "  Found:    $__dg_runner in $__dg_place" \
        "  Remedy:   name the built program in the service's command or the image's CMD, for example node dist/worker.js, not npx tsx src/worker.ts"
}

__dg_check_sha() {
    # shellcheck disable=SC2254 # a pattern in a variable
    case ${GIT_SHA-} in
    $__dg_hex40) return 0 ;;
    '') __dg_found=nothing ;;
    *)
        __dg_show "$GIT_SHA"
        __dg_found="'$__dg_shown'"
        ;;
    esac
    case ${GIT_SHA-}${GIT_SHA+.} in
    '') __dg_fault='is not set' ;;
    .) __dg_fault='is empty' ;;
    unknown.) __dg_fault="is 'unknown'" ;;
    *) __dg_fault='is not a full commit SHA' ;;
    esac
    __dg_refuse "GIT_SHA $__dg_fault in production!" \
        '  Expected: the full commit SHA from the image build, 40 lowercase hexadecimal digits' \
        "  Found:    $__dg_found" \
        'This worker CANNOT run - may be stale code.' \
        '  Remedy:   build the image with the worker_image module or --build-arg GIT_SHA=<full SHA>; never set GIT_SHA at deploy time'
}

# Sets __dg_problem to what keeps file $1 from being read: missing, unreadable, or nothing.
__dg_look() {
    __dg_problem=
    if [ ! -e "$1" ] && [ ! -L "$1" ]; then
        __dg_problem=missing
    elif [ ! -f "$1" ] || [ ! -r "$1" ]; then
        __dg_problem=unreadable # opening a pipe or a device could hang
    fi
}

__dg_check_image() {
    __dg_look "$__dg_image_file"
    __dg_show "$__dg_image_file"
    if [ "$__dg_problem" = missing ] && [ -z "$__dg_mounted" ]; then
        printf '[version] NOTE: %s is missing and no host record is mounted: GIT_SHA is taken on trust\n' "$__dg_shown"
        return 0
    fi
    if [ -z "$__dg_problem" ] && ! __dg_read_image "$__dg_image_file"; then
        __dg_problem=malformed
    fi
    if [ -n "$__dg_problem" ]; then
        __dg_refuse "Image file is $__dg_problem!" \
            "  Expected: $__dg_shown as the image build wrote it" \
            "  Found:    it is $__dg_problem" \
            'This worker CANNOT run - may be stale code.' \
            '  Remedy:   build the image with the worker_image module, and mount nothing over this file'
    elif [ "$__dg_revision" != "$GIT_SHA" ]; then
        __dg_refuse 'GIT_SHA was overridden at deploy time!' \
            "  Expected: $__dg_revision (baked into $__dg_shown)" \
            "  Found:    $GIT_SHA (environment)" \
            'This worker CANNOT run - may be stale code.' \
            "  Remedy:   remove GIT_SHA from the service's environment and env files; it comes from the image alone"
    fi
}

# Sets __dg_release and __dg_revision from an image file of one key per line; fails on anything else.
__dg_read_image() {
    __dg_state=start
    __dg_seen=' '
    __dg_lines=0
    while IFS= read -r __dg_line || [ -n "$__dg_line" ]; do
        __dg_lines=$((__dg_lines + 1))
        [ "$__dg_lines" -le 64 ] && [ "${#__dg_line}" -le 512 ] || return 1
        case $__dg_state in
        entry) __dg_read_entry || return 1 ;;
        start)
            [ "$__dg_line" = '{' ] || return 1
            __dg_state=entry
            ;;
        last)
            [ "$__dg_line" = '}' ] || return 1
            __dg_state=end
            ;;
        *) return 1 ;;
        esac
    done <"$1"
    [ "$__dg_state" = end ] || return 1
    for __dg_key in schema fleet variant release revision created baseName baseDigest; do
        case $__dg_seen in *" $__dg_key "*) ;; *) return 1 ;; esac
    done
    [ "$__dg_schema" = 1 ] && __dg_is_pair "$__dg_release:$__dg_revision"
}

__dg_read_entry() {
    case $__dg_line in
    '  "'*'": "'*'",') __dg_value=${__dg_line%'",'} ;;
    '  "'*'": "'*'"')
        __dg_value=${__dg_line%'"'}
        __dg_state=last
        ;;
    *) return 1 ;;
    esac
    __dg_value=${__dg_value#'  "'}
    __dg_key=${__dg_value%%'": "'*}
    __dg_value=${__dg_value#*'": "'}
    case $__dg_key in '' | *[!ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz]*) return 1 ;; esac
    case $__dg_value in '' | *[!$__dg_plain]*) return 1 ;; esac
    case $__dg_seen in *" $__dg_key "*) return 1 ;; esac
    __dg_seen="$__dg_seen$__dg_key "
    case $__dg_key in
    schema) __dg_schema=$__dg_value ;;
    release) __dg_release=$__dg_value ;;
    revision) __dg_revision=$__dg_value ;;
    esac
}

__dg_check_expected() {
    case ${EXPECTED_GIT_SHA-} in '' | "$GIT_SHA") return 0 ;; esac
    __dg_remedy="recreate the container from the expected commit's image, or deploy the commit this image was built from"
    case $EXPECTED_GIT_SHA in
    ???????*)
        case $GIT_SHA in
        "$EXPECTED_GIT_SHA"*) __dg_remedy='set EXPECTED_GIT_SHA to all 40 digits; a short SHA is never compared' ;;
        esac
        ;;
    esac
    __dg_show "$EXPECTED_GIT_SHA"
    __dg_refuse 'Version mismatch!' \
        "  Image SHA:    $GIT_SHA" \
        "  Expected SHA: $__dg_shown" \
        'This worker is running STALE code. Exiting.' \
        "  Remedy:   $__dg_remedy"
}

__dg_check_record() {
    [ -n "$__dg_mounted" ] || return 0
    __dg_look "$__dg_record/guard.env"
    if [ -z "$__dg_problem" ] && ! __dg_read_record "$__dg_record/guard.env"; then
        __dg_problem=malformed
    fi
    if [ -n "$__dg_problem" ]; then
        __dg_show "$__dg_record/guard.env"
        __dg_refuse "Host record is $__dg_problem!" \
            "  Expected: $__dg_shown as the deployment wrote it" \
            "  Found:    it is $__dg_problem" \
            'This worker CANNOT run - nothing says which release this host allows.' \
            "  Remedy:   deploy to this host again; its guard directory is mounted read-only at $__dg_mount"
    fi
    case "$__dg_allowed or " in *" or $__dg_release:$__dg_revision or "*) return 0 ;; esac
    __dg_refuse 'This host does not allow this release!' \
        "  Expected: ${__dg_allowed# or }" \
        "  Found:    $__dg_release:$__dg_revision (this image)" \
        'This worker is running STALE code. Exiting.' \
        "  Remedy:   recreate the container from an allowed release, or deploy this image's commit to this host"
}

# Sets __dg_allowed from a host record of KEY=VALUE lines; fails on anything malformed.
__dg_read_record() {
    __dg_seen=' '
    __dg_lines=0
    __dg_releases=0
    __dg_allowed=
    while IFS= read -r __dg_line; do
        __dg_lines=$((__dg_lines + 1))
        [ "$__dg_lines" -le 64 ] && [ "${#__dg_line}" -le 512 ] || return 1
        __dg_read_setting || return 1
    done <"$1"
    [ -z "$__dg_line" ] && [ "$__dg_releases" -ge 1 ] && [ "$__dg_releases" -le 32 ] || return 1
    for __dg_key in SCHEMA FLEET GENERATION PHASE TARGET; do
        case $__dg_seen in *" $__dg_key "*) ;; *) return 1 ;; esac
    done
    [ "$__dg_phase" = rolling ] || [ "$__dg_allowed" = " or $__dg_target" ] || return 1
    case "$__dg_allowed or " in *" or $__dg_target or "*) ;; *) return 1 ;; esac
}

__dg_read_setting() {
    __dg_key=${__dg_line%%=*}
    __dg_value=${__dg_line#*=}
    case $__dg_line in *=*) ;; *) return 1 ;; esac
    case $__dg_key in '' | *[!ABCDEFGHIJKLMNOPQRSTUVWXYZ_]*) return 1 ;; esac
    case $__dg_value in '' | *[!$__dg_plain]*) return 1 ;; esac
    case $__dg_key in
    SCHEMA) [ "$__dg_value" = 1 ] || return 1 ;;
    FLEET) __dg_is_fleet "$__dg_value" || return 1 ;;
    GENERATION)
        case $__dg_value in 0* | *[!0123456789]* | ?????????????????*) return 1 ;; esac
        [ "$__dg_value" -le 1000000000000000 ] || return 1
        ;;
    PHASE)
        case $__dg_value in rolling | settled) ;; *) return 1 ;; esac
        __dg_phase=$__dg_value
        ;;
    TARGET)
        __dg_is_pair "$__dg_value" || return 1
        __dg_target=$__dg_value
        ;;
    ALLOWED)
        __dg_is_pair "$__dg_value" || return 1
        case "$__dg_allowed or " in *" or $__dg_value or "*) return 1 ;; esac
        __dg_releases=$((__dg_releases + 1))
        __dg_allowed="$__dg_allowed or $__dg_value"
        return 0
        ;;
    esac
    case $__dg_seen in *" $__dg_key "*) return 1 ;; esac
    __dg_seen="$__dg_seen$__dg_key "
}

# Whether $1 is <release>:<sha>, and the release is one of that commit.
# shellcheck disable=SC2254
__dg_is_pair() {
    case $1 in $__dg_hex12.$__dg_hex12:$__dg_hex40) ;; *) return 1 ;; esac
    case ${1#*:} in "${1%%.*}"*) ;; *) return 1 ;; esac
}

__dg_is_fleet() {
    [ "${#1}" -ge 2 ] && [ "${#1}" -le 32 ] || return 1
    case $1 in
    *[!abcdefghijklmnopqrstuvwxyz0123456789-]* | [0123456789-]* | *-) return 1 ;;
    esac
}

__dg_guard() {
    __dg_clean=yes
    __dg_check_runner "$@" || :
    __dg_show "${WORKER_TYPE:-unknown}"
    printf '[version] Worker: %s\n' "$__dg_shown"
    __dg_show "${GIT_SHA:-unknown}"
    [ -n "${GIT_SHA-}" ] || __dg_shown='(not set)'
    printf '[version] GIT_SHA: %s\n' "$__dg_shown"
    __dg_show "${EXPECTED_GIT_SHA-}"
    [ -n "$__dg_shown" ] || __dg_shown='(not set)'
    printf '[version] EXPECTED_GIT_SHA: %s\n' "$__dg_shown"
    # Outside production the first violation ends them, since the later ones would only repeat it.
    if __dg_check_sha && __dg_check_image && __dg_check_expected; then
        __dg_check_record
    fi
    if [ -n "$__dg_clean" ]; then
        printf '[version] Version check passed: %s\n' "$GIT_SHA"
    else
        printf '[version] Version not enforced outside production\n'
    fi
}

__dg_check_only=
__dg_image_file=/etc/driftguard/image.json
__dg_mounted=
__dg_record=
while [ "$#" -gt 0 ] && [ "$1" != -- ]; do
    case $1 in
    --help)
        __dg_usage
        exit 0
        ;;
    --check) __dg_check_only=yes ;;
    --record | --image-file)
        [ "$#" -gt 1 ] || __dg_misused "$1"
        case $1 in
        --record)
            __dg_mounted=yes
            __dg_record=$2
            ;;
        *) __dg_image_file=$2 ;;
        esac
        shift
        ;;
    *) __dg_misused "$1" ;;
    esac
    shift
done
[ "$#" -eq 0 ] || shift
[ "$#" -gt 0 ] || [ -n "$__dg_check_only" ] || __dg_misused

if [ -z "$__dg_mounted" ]; then
    case $0 in */*) __dg_here=${0%/*} ;; *) __dg_here=. ;; esac
    for __dg_file in "$__dg_mount" "$__dg_here/guard.json" "$__dg_here/guard.env"; do
        if [ -e "$__dg_file" ] || [ -L "$__dg_file" ]; then
            __dg_mounted=yes
            __dg_record=${__dg_file%/guard.*}
            break
        fi
    done
fi
__dg_enforced=$__dg_mounted
case ${WORKER_ENV-} in production) __dg_enforced=yes ;; esac
case ${NODE_ENV-} in production) __dg_enforced=yes ;; esac

__dg_guard "$@"
[ -z "$__dg_check_only" ] || exit 0
case $1 in
'' | -*)
    __dg_show "$1"
    printf 'version_guard: %s: not found\n' "$__dg_shown" >&2
    exit 127
    ;;
esac
exec "$@"
