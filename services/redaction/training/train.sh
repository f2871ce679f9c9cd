#!/usr/bin/env bash
# train.sh PYTHON_OF_THE_SERVICE WORK: data, teachers' labels, training, export into the service. Steps done are not repeated.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
teachers_python=$1 work=$2
models=$here/../src/sluice_redaction/adapters/models
mkdir -p "$work"
export OMP_NUM_THREADS=1 PYTHONPATH=$here/../src
[ -x "$work/venv/bin/python" ] || python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
python=$work/venv/bin/python
[ -d "$work/packages" ] || PATH=$work/venv/bin:$PATH "$here/packages.sh" "$work/packages"
[ -f "$work/passages.jsonl" ] || "$python" "$here/corpora.py" "$work/packages" "$work/passages.jsonl"
[ -f "$work/labelled.jsonl" ] || {
    nice "$teachers_python" "$here/teachers.py" "$work/passages.jsonl" "$work/labelling.jsonl" 900
    mv "$work/labelling.jsonl" "$work/labelled.jsonl"
}
common=(--packages "$work/packages" --passages "$work/passages.jsonl" --labelled "$work/labelled.jsonl")
nice "$python" "$here/train.py" "${common[@]}" --out "$work/first" --minutes 20
"$python" "$here/export.py" "$work/first/params.pickle" "$work/first/names_lexicon.npz" "$models"
"$python" "$here/evaluate.py" --packages "$work/packages" --without stock,teachers
