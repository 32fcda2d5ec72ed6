#!/usr/bin/env bash
# Get the reference's public files, check their md5, and unpack the checkpoints. A broken download is resumed.
#
#   bash scripts/download_data.sh [FOLDER] [NAME ...]
#
# FOLDER: ./data unless named. NAME: only these files. BASE_URL names a mirror.
set -euo pipefail
BASE_URL=${BASE_URL:-https://bj.bcebos.com/paddlenlp/models/semantic_index/}
folder=${1:-data}
[ $# -gt 0 ] && shift

files="semantic_pair_train.tsv 590286f695200160350cc5838cb34f00
same_semantic.tsv 86ec1fd5234d944177574372dcf780c5
corpus_file a3fbc3421b5aeb939809876fc7beeaa8
batch_neg_v1.0.tar da1bb1487bd3fd6a53b8ef95c278f3e6
hardest_neg_v1.0.tar b535d890110ea608c8562c525a0b84b5"

fail() { echo "error: $1" >&2; exit 2; }
md5_of() { md5sum "$1" | cut -d' ' -f1; }

command -v curl >/dev/null || fail "curl is missing; install it (Debian, Ubuntu: apt-get install curl)"
for name in "$@"; do
  grep -q "^$name " <<<"$files" || fail "there is no file $name; the files are: $(cut -d' ' -f1 <<<"$files" | xargs)"
done
mkdir -p "$folder" || fail "cannot make the folder $folder; choose a writable place"

while read -r name md5; do
  if [ $# -gt 0 ] && [[ " $* " != *" $name "* ]]; then continue; fi
  md5=${MD5:-$md5}
  target=$folder/$name part=$folder/$name.part
  if [ ! -f "$target" ]; then
    echo "$name: downloading" >&2
    # A part that is whole already would be refused by the server: there is nothing left to ask for.
    [ -f "$part" ] && [ "$(md5_of "$part")" = "$md5" ] ||
      curl --fail --silent --show-error --location --retry 3 --continue-at - --output "$part" "${BASE_URL%/}/$name" ||
      fail "$name could not be downloaded from ${BASE_URL%/}/; check the network and run again: it continues where it stopped"
    got=$(md5_of "$part")
    if [ "$got" != "$md5" ]; then
      rm -f "$part"
      fail "$name arrived broken: md5 $got, not $md5; it was removed, run again"
    fi
    mv "$part" "$target"
  elif [ "$(md5_of "$target")" != "$md5" ]; then
    fail "$target is not the published file (md5 differs); remove it and run again"
  fi
  case $name in *.tar) tar -xf "$target" -C "$folder" || fail "$target could not be unpacked; check the free space" ;; esac
  echo "$name: whole" >&2
done <<<"$files"
