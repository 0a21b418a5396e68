#!/usr/bin/env bash
# Uses a number of minutes on a rented GPU: checks the machine, trains, packs rows for the way home.
#
#     bash bench/speed/on_gpu.sh [--from FOLDER] [--speed] [--tests] MINUTES OUT [-- ARGUMENTS]
#
# ARGUMENTS are those of bench.run (default: toy_grid --scale paper --lam 0.1). Without --device among
# them the trainings need a GPU. A dry run looks at them first. --from takes rows of an earlier OUT,
# or of a results folder, so that their trainings are not run again. --speed and --tests run
# bench.speed --device cuda and the tests of a GPU at the end. They take nearly six minutes, and have
# to leave a third of the time to training. --help prints these lines.
#
# OUT gets on_gpu.log, check.json and the newest pack, rows-PACK.tgz.1-of-N and so on, of 15 MB each.
# The script packs once a minute, after SIGTERM and at its end, so that it can be stopped anywhere.
# `bench/speed/trip.sh receive OUT RESULTS` takes a pack home.
#
# Environment: PYTHON (default: python3), RESULTS (default: a new folder, in /dev/shm if that is
# large), PARTS (most parts of a pack, default 4), PART (most bytes of a part), EVERY (seconds between
# packs, default 60), CHECK (most seconds of the check, default 150), and SVAE_BENCH_COMMIT, which
# `bench/speed/trip.sh send` tells.
#
# Exit status: that of bench.run, 143 after SIGTERM, 2 for wrong usage.
set -u
trap '' PIPE # whoever reads the output may be gone
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-python3}
export PYTHON="$python" PYTHONUNBUFFERED=1 PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
most=${PARTS:-4} every=${EVERY:-60}
START=20 END=25 # seconds that bench.run takes before it trains, and that the end takes
check=${CHECK:-150} SPEED=200 TESTS=150 # most seconds of a step
PART=${PART:-15000000} LOGS=1000000 # bytes
SHM=2000000 # least KB of /dev/shm, which small machines limit

say() { echo "[$SECONDS s] $*" >&2; }

refuse() {
    echo "on_gpu.sh: $1" >&2
    exit 2
}

# Options

from=() speed='' tests=''
while [[ "${1-}" == --?* ]]; do
    case "$1" in
    --from)
        [ -d "${2-}" ] || refuse "--from ${2-}; allowed: a folder"
        from+=("$2")
        shift
        ;;
    --help)
        sed -n '2,/^set -u/ s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
        exit 0
        ;;
    --speed) speed=yes ;;
    --tests) tests=yes ;;
    *) refuse "$1 is unknown; allowed: --from FOLDER, --speed, --tests, --help" ;;
    esac
    shift
done
[[ $# -eq 2 || ($# -ge 3 && "$3" == --) ]] ||
    refuse "allowed: [--from FOLDER] [--speed] [--tests] MINUTES OUT [-- arguments of bench.run]"
end=$(awk -v minutes="$1" 'BEGIN { print int(60 * minutes) }')
[[ "$1" =~ ^[0-9]+(\.[0-9]+)?$ && "$end" -ge 60 ]] || refuse "MINUTES is $1; allowed: a number >= 1"
mkdir -p "$2" && out=$(cd "$2" && pwd) || refuse "OUT is $2, which can't be made"
if ls "$out" | grep -q '^rows-'; then
    refuse "OUT $2 has rows of an earlier run; allowed: another folder, and --from $2"
fi
shift $(($# > 2 ? 3 : 2))
[ $# -gt 0 ] || set -- toy_grid --scale paper --lam 0.1
[[ " $* " == *" --device"[\ =]* ]] || set -- "$@" --device cuda
room=$(df -Pk /dev/shm 2>/dev/null | awk 'NR == 2 { print $4 }')
[ -z "${TMPDIR-}" ] && [ "${room:-0}" -ge "$SHM" ] && export TMPDIR=/dev/shm
scratch=$(mktemp -d) || exit 1
results=${RESULTS:-$scratch/results}
mkdir -p "$results" "$scratch/logs" && results=$(cd "$results" && pwd) || exit 1

# The log gets all that is printed. tee outlives a signal to all programs of the terminal.
exec > >(trap '' TERM INT HUP && exec tee -a "$out/on_gpu.log") 2>&1

# Packing

packs=0 left_out='' failed='this pack could not be made; the pack before it stays'

# Packs what is stored and fits, in order of importance. Trainings may go on meanwhile: each file of
# the results is replaced in one step, and samples, which are stored before their row, come after it.
pack() {
    local folder name kind part n i status list=() size=0 left=''
    local -A kinds=([rows]='' [failures]='' [samples]='' [weights]='')
    rm -rf "$scratch/pack" && mkdir "$scratch/pack" || return 1
    for folder in "$results"/*/*/; do
        name=${folder#"$results/"} && name=${name%/}
        case "${name#*/}" in
        _*)
            [ -d "$folder/failed" ] && kinds[failures]+=" $name/failed"
            [ -d "$folder/weights" ] && kinds[weights]+=" $name/weights"
            ;;
        *_samples) kinds[samples]+=" $name" ;;
        smoke | quick | paper) kinds[rows]+=" $name" ;;
        esac
    done
    for kind in rows failures samples weights; do
        [ -n "${kinds[$kind]}" ] || continue
        n=$(cd "$results" && du -sbc ${kinds[$kind]} | tail -n 1 | cut -f 1)
        if ((size + n > most * PART - LOGS)); then
            left+=" $kind"
        else
            size=$((size + n))
            list+=(${kinds[$kind]})
        fi
    done
    if [ "$left" != "$left_out" ] && [ -n "$left" ]; then
        say "no room in $most parts of $PART bytes for:$left. They stay in $results"
    fi
    left_out=$left
    cp "$out/on_gpu.log" "$scratch/logs/"
    tar -c --warning=no-file-changed --warning=no-file-removed -C "$scratch" logs \
        ${list[@]+-C "$results" "${list[@]}"} | gzip -1 | split -b "$PART" -d -a 3 - "$scratch/pack/"
    status=("${PIPESTATUS[@]}")
    # tar ends with 1 where a file was replaced meanwhile.
    [ "${status[0]}" -le 1 ] && [ "${status[1]}${status[2]}" = 00 ] || return 1
    packs=$((packs + 1)) i=0
    name=$(printf 'rows-%03d.tgz' "$packs")
    n=$(ls "$scratch/pack" | wc -l)
    # The old pack goes when all of the new pack is there.
    for part in "$scratch"/pack/*; do
        i=$((i + 1))
        cp "$part" "$out/new" && mv "$out/new" "$out/$name.$i-of-$n" || return 1
    done
    find "$out" -name 'rows-*' ! -name "$name.*" -delete
}

finish() {
    trap '' TERM INT HUP
    if [ -n "$child" ]; then # timeout passes the signal on, and kills after ten seconds
        kill -TERM "$child" 2>/dev/null
        wait "$child"
    fi
    pack || say "$failed"
    say "packed: $(cd "$out" && ls -1 | grep '^rows-' | tr '\n' ' ')"
    if [ -n "${RESULTS-}" ]; then
        rm -rf "$scratch"
    else
        say "all results stay in $results"
    fi
}

# Steps

child=''

# Runs a command for so many seconds at most, and packs meanwhile.
step() {
    local limit=$1 next=$((SECONDS + every)) status
    shift
    if [ "$limit" -lt 5 ]; then
        say "no time is left for: $*"
        return 124
    fi
    say "up to $limit s: $*"
    timeout -k 10 "$limit" "$@" &
    child=$!
    while kill -0 "$child" 2>/dev/null; do
        sleep 0.5 &
        wait $!
        if ((SECONDS >= next)); then
            pack || say "$failed"
            next=$((SECONDS + every))
        fi
    done
    wait "$child"
    status=$?
    child=''
    say "status $status: $*"
    return "$status"
}

left() { echo $((end - END - SECONDS)); }
least() { echo $(($1 < $2 ? $1 : $2)); }

stopped() {
    say "stopped by a signal"
    pack || say "$failed" # first of all
    exit 143
}
trap stopped TERM INT HUP
trap finish EXIT

[ -n "${SVAE_BENCH_COMMIT-}" ] || say "SVAE_BENCH_COMMIT is not set, so rows can't be published"
for folder in "${from[@]}"; do
    step "$(left)" bash "$here/trip.sh" merge "$folder" "$results"
done
timeout 60 "$python" -m bench.run "$@" --results "$results" --dry-run || exit
step "$(least "$check" "$(left)")" "$python" -m bench.check --json --results "$results" \
    >"$scratch/logs/check.json"
[ -s "$scratch/logs/check.json" ] && cp "$scratch/logs/check.json" "$out/"

after=$(((${#speed} > 0 ? SPEED : 0) + (${#tests} > 0 ? TESTS : 0)))
for try in 1 2 3; do
    rest=$(($(left) - START))
    [ $((3 * (rest - after))) -lt "$rest" ] || rest=$((rest - after))
    if ((rest < 5)); then
        say "no time is left for bench.run $*"
        break
    fi
    minutes=$(printf '%d.%02d' $((rest / 60)) $((rest % 60 * 100 / 60)))
    step $((rest + START + 10)) "$python" -m bench.run --keep-weights none "$@" \
        --max-time "$minutes" --results "$results" --no-report
    status=$?
    [ "$status" -ge 128 ] || break # it was killed: stored trainings stay, the others run again
done
[ -z "$speed" ] || step "$(least "$SPEED" "$(left)")" \
    "$python" -m bench.speed --device cuda --out "$scratch/logs/speed.md"
# One of the tests is the check, which has been made.
[ -z "$tests" ] || step "$(least "$TESTS" "$(left)")" \
    "$python" -m pytest -q -m gpu -k "not a_gpu_is_not_broken" -p no:cacheprovider "$root/tests"
exit "${status:-1}"
