#!/usr/bin/env bash
# Sends the suite to a machine that is rented by the minute, and takes its rows home.
#
#     bash bench/speed/trip.sh send FILE               packs the suite's files of today's commit
#     bash bench/speed/trip.sh merge FOLDER RESULTS    joins what came back with a results folder
#     bash bench/speed/trip.sh receive FOLDER RESULTS  the same, then renders the reports
#
# FOLDER is what bench/speed/on_gpu.sh has left, or any folder of results. RESULTS is as in
# `bench.run --results`. PYTHON names the interpreter (default: python3).
#
# Exit status: 0, 1 if something did not come home, 2 for wrong usage.
set -u
python=${PYTHON:-python3}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
most=50000000 # bytes of the suite's files

refuse() {
    echo "trip.sh: $1" >&2
    exit 2
}

send() {
    local file=$1 changed size
    changed=$(git -C "$root" status --porcelain --untracked-files=no) ||
        refuse "$root is no checkout of git, so nothing says which commit it is"
    [ -z "$changed" ] ||
        refuse "files differ from the commit, so rows could not be published; commit them first"
    size=$(git -C "$root" archive HEAD | wc -c)
    [ "$size" -le "$most" ] || refuse "the files have $size bytes; allowed: at most $most"
    git -C "$root" archive HEAD | gzip >"$file" || refuse "$file can't be written"
    commit=$(git -C "$root" rev-parse HEAD)
    echo "$file: $size bytes of files. On the other machine, in an empty folder:"
    echo "    tar -xzf $(basename "$file")"
    echo "    SVAE_BENCH_COMMIT=$commit bash bench/speed/on_gpu.sh 10 out"
}

# Prints the parts of the newest pack that is whole, one after the other. on_gpu.sh names a part
# rows-PACK.tgz.I-of-N, so a kill amid a new pack leaves the pack before.
whole_pack() {
    local folder=$1 pack n i parts
    for pack in $(cd "$folder" && ls | sed -n 's/^rows-\([0-9]*\)\.tgz\..*/\1/p' | sort -rnu); do
        n=$(cd "$folder" && ls | sed -n "s/^rows-$pack\.tgz\.[0-9]*-of-\([0-9]*\)\$/\1/p" | head -1)
        parts=()
        for ((i = 1; i <= ${n:-0}; i++)); do
            parts+=("$folder/rows-$pack.tgz.$i-of-$n")
        done
        if [ "${#parts[@]}" -gt 0 ] && cat "${parts[@]}" 2>/dev/null | gzip -t 2>/dev/null; then
            printf '%s\n' "${parts[@]}"
            return 0
        fi
        echo "trip.sh: pack $pack of $folder is not whole" >&2
    done
    return 1
}

# Leaves the folder of the rows in $rows.
unpack() {
    local folder=$1 part parts=()
    rows=$folder
    if ls "$folder" | grep -q '^rows-[0-9]*\.tgz\.'; then
        rows=$(mktemp -d) || exit 1
        trap 'rm -rf "$rows"' EXIT
        while IFS= read -r part; do
            parts+=("$part")
        done < <(whole_pack "$folder")
        if [ "${#parts[@]}" -eq 0 ] || ! cat "${parts[@]}" | tar -xz -C "$rows"; then
            echo "trip.sh: no pack of $folder is whole" >&2
            exit 1
        fi
    fi
}

merge() {
    unpack "$1"
    if ! ls -d "$rows"/*/*/ >/dev/null 2>&1; then
        echo "trip.sh: no training was stored in $1" >&2
        return 1
    fi
    "$python" -m bench.results merge "$rows" --into "$2"
}

receive() {
    local status=0 folder study scale
    merge "$1" "$2" || status=1
    for scale in smoke quick paper; do
        for folder in "$rows"/*/"$scale"/; do
            [ -d "$folder" ] || continue
            study=$(basename "$(dirname "$folder")")
            "$python" -m bench.report "$study" --scale "$scale" --results "$2" || status=1
        done
    done
    return "$status"
}

case "${1-} $#" in
"send 2") send "$2" ;;
"merge 3" | "receive 3")
    [ -d "$2" ] || refuse "$2 is no folder"
    "$1" "$2" "$3"
    ;;
*) refuse "allowed: send FILE, merge FOLDER RESULTS, receive FOLDER RESULTS" ;;
esac
