"""How the files in this folder were made: `python datasets/build.py FOLDER`, FOLDER holding SciFact in BEIR's layout.

Writes scifact/ (all documents, the judged test claims and their judgements), embeddings/scifact-minilm-4k.npz and
manifest.json. The same input and the same model give the same bytes, but for the last bits of the embeddings, which
differ between processors.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vecdb.embedding import embed_in_batches, load_embedder
from vecdb.judged import JudgedCollection, load_judged

HERE = Path(__file__).resolve().parent
EMBEDDED = 4000  # documents, the first of the corpus
NEIGHBOURS = 100

SCIFACT = {
    "name": "scifact",
    "description": "Scientific abstracts, and claims that experts wrote from sentences that cite them; relevant to a "
    "claim are the abstracts cited there. All 5,183 abstracts and the 300 claims that BEIR uses as its test queries.",
    "source": "https://github.com/allenai/scifact (claims_dev.jsonl and corpus.jsonl), in the layout and with the "
    "judgements of BEIR (https://github.com/beir-cellar/beir)",
    "licence": "claims and judgements CC BY 4.0, abstracts ODC-By 1.0; see scifact/ATTRIBUTION.md",
}
EMBEDDINGS = {
    "name": "scifact-minilm-4k",
    "description": f"`base`: the first {EMBEDDED} documents of scifact/corpus.jsonl.gz, title, space, text; `queries`: "
    "the 300 claims of scifact/queries.jsonl.gz; both in file order, embedded with all-MiniLM-L6-v2-int8, unit length, "
    f"then rounded to float16. `neighbours`: the rows of the {NEIGHBOURS} documents nearest to each claim by cosine, "
    "nearest first, equal ones by row: dot products in float64 of the stored vectors, taken to float32 and scaled to "
    "unit length there.",
    "source": "made from scifact by datasets/build.py",
    "licence": "as scifact",
}


def main(folder: str) -> None:
    judged = load_judged(Path(folder))
    write_collection(judged, HERE / "scifact")
    write_embeddings(judged, HERE / "embeddings" / "scifact-minilm-4k.npz")
    counts = {
        "documents": len(judged.corpus),
        "queries": len(judged.queries),
        "judgements": sum(map(len, judged.qrels.values())),
    }
    vectors = {"base": [EMBEDDED, 384], "queries": [len(judged.queries), 384]}
    vectors["neighbours"] = [len(judged.queries), NEIGHBOURS]
    entries = [
        {**SCIFACT, "counts": counts, "files": checksums((HERE / "scifact").rglob("*"))},
        {**EMBEDDINGS, "counts": vectors, "files": checksums((HERE / "embeddings").glob("*.npz"))},
    ]
    (HERE / "manifest.json").write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


def write_collection(judged: JudgedCollection, target: Path) -> None:
    (target / "qrels").mkdir(parents=True, exist_ok=True)
    queries = [{"_id": query, "text": text} for query, text in judged.queries.items()]
    for name, items in (("corpus", judged.corpus), ("queries", queries)):
        lines = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)
        (target / f"{name}.jsonl.gz").write_bytes(gzip.compress(lines.encode(), 9, mtime=0))
    rows = [f"{query}\t{doc}\t{grade}\n" for query, grades in judged.qrels.items() for doc, grade in grades.items()]
    (target / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows), encoding="utf-8")


def write_embeddings(judged: JudgedCollection, target: Path) -> None:
    embedder = load_embedder("default")
    texts = [f"{document['title']} {document['text']}".strip() for document in judged.corpus[:EMBEDDED]]
    base = embed_in_batches(embedder, texts, progress=lambda done, total: print(done, "of", total, file=sys.stderr))
    queries = embed_in_batches(embedder, list(judged.queries.values()))
    stored, asked = base.astype(np.float16), queries.astype(np.float16)
    arrays: dict[str, NDArray[Any]] = {"base": stored, "queries": asked, "neighbours": nearest(stored, asked)}
    target.parent.mkdir(parents=True, exist_ok=True)
    write_npz(target, arrays)


def nearest(base: NDArray[np.float16], queries: NDArray[np.float16]) -> NDArray[np.int32]:
    """(Q, NEIGHBOURS) int32: what `neighbours` is, see EMBEDDINGS."""
    cosines = unit(queries).astype(np.float64) @ unit(base).astype(np.float64).T
    return np.argsort(-cosines, axis=1, kind="stable")[:, :NEIGHBOURS].astype(np.int32)


def unit(vectors: NDArray[np.float16]) -> NDArray[np.float32]:
    wide = vectors.astype(np.float32)
    scaled: NDArray[np.float32] = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return scaled


def write_npz(target: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """As numpy.savez_compressed, but without the time of writing, so that the same arrays give the same file."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue(), zipfile.ZIP_DEFLATED)


def checksums(paths: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each file, by its path from this folder."""
    files = sorted(path for path in paths if path.is_file() and path.suffix != ".md")
    return {path.relative_to(HERE).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


if __name__ == "__main__":
    main(sys.argv[1])
