"""Kernels that the interpreter runs are compiled for a GPU as well, without one: Triton's package has all that this takes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

_COMPILE = """
import json, re, subprocess, sys, tempfile, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from vecdb.gpu import codec_kernels, reference, walk

CODECS = dict(values="*fp32", factors="*fp32", codes="*u8", lows="*fp32", inverses="*fp32", steps="*fp32", books="*fp32",
              sideways="*fp32", halves="*fp32", by_code="*fp32", before="*fp32", after="*fp32", whole="*fp64", wide="*fp64",
              shifts="*i32", made="*fp32")

def compiled_codec(kernel, unaligned=(), **constants):
    signature = {}  # as launched for vectors of 768 numbers
    for name in kernel.arg_names:
        is_address = name.endswith("_ptr")
        signature[name] = CODECS[name.removesuffix("_ptr")] if is_address else "fp32" if name == "top" else "i32"
        if name in constants:
            signature[name] = "constexpr"
    aligned = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name, kind in signature.items()
               if kind[0] == "*" or name in ("dim", "width", "parts") and name not in unaligned}
    source = ASTSource(kernel, signature, constants, aligned)
    options = {"num_warps": 4, "enable_fp_fusion": False}
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        told = subprocess.run([triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name], capture_output=True, text=True)
    # Registers that did not suffice show as memory of a thread's own.
    spilled = [int(n) for n in re.findall(r"(?:STACK|LOCAL):([0-9]+)", told.stdout)]
    return {"name": kernel.__name__, "ptx": made.asm["ptx"], "spilled": spilled}

E4M3 = reference.FLOAT8["e4m3"]
FLOAT8 = dict(DROP=E4M3.drop, MOST=E4M3.most)
TO_FLOAT8 = dict(FLOAT8, BASE=E4M3.base, LEAST=E4M3.least, STEPS=E4M3.steps, TARGET=E4M3.target)
ROWS = dict(ROWS=2, DIMS=1024)

def codecs():
    for has_factors in (False, True):
        unaligned = () if has_factors else ("width",)
        yield compiled_codec(codec_kernels._encode_float8_kernel, unaligned, **TO_FLOAT8, HAS_FACTORS=has_factors, **ROWS)
        yield compiled_codec(codec_kernels._decode_float8_kernel, unaligned, **FLOAT8, UNIT=2.0**120, HAS_FACTORS=has_factors,
                             **ROWS)
    yield compiled_codec(codec_kernels._encode_levels_kernel, **ROWS)
    yield compiled_codec(codec_kernels._decode_levels_kernel, **ROWS)
    for is_back in (False, True):
        yield compiled_codec(codec_kernels._whole_kernel, TARGET=24, IS_BACK=is_back, **ROWS)
        yield compiled_codec(codec_kernels._narrow_kernel, IS_BACK=is_back, ROWS=8, DIMS=256)
    yield compiled_codec(codec_kernels._unit_kernel, **ROWS)
    yield compiled_codec(codec_kernels._turn_kernel, FARTHEST=reference.FARTHEST, TILE=codec_kernels._TILE)
    yield compiled_codec(codec_kernels._nearest_kernel, SIZE=8, COUNT=256, ROWS=codec_kernels._NEAR_ROWS,
                         CENTROIDS=codec_kernels._NEAR_CENTROIDS)
    yield compiled_codec(codec_kernels._decode_parts_kernel, SIZE=8, COUNT=256, ROWS=16, DIMS=128)

TYPES = dict(codes="*i32", queries="*i32", scales="*fp32", query_scales="*fp32", offsets="*fp32", allowed="*i1", work="*i32",
             starts="*i32", table="*i32", found="*i32", links="*i32", base="*fp16", scores="*fp32", rows="*i64")

def compiled(kernel, warps, **constants):
    signature = {}
    for name in kernel.arg_names:
        if name in constants:
            signature[name] = "constexpr"
        elif name.endswith("_ptr"):
            signature[name] = TYPES[name.removesuffix("_ptr")]
        else:
            signature[name] = "fp32" if name == "base_scale" else "i32"
    is_aligned = [n for n, t in signature.items() if t[0] == "*" or n == "links"]
    aligned = {(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in is_aligned}
    if kernel is walk._check_kernel:
        signature["queries_ptr"] = "*fp32"
    source = ASTSource(kernel, signature, constants, aligned)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    return {"ptx": made.asm["ptx"], "cubin": len(made.asm["cubin"])}

print(json.dumps([
    compiled(walk._walk_kernel, 1, WIDTH=192, WORDS=128, EF=64, LINKS=32, EXPAND=1, BITS=10, CHECKED=32, IS_INT8=True,
             HAS_OFFSETS=True, HAS_ALLOWED=True),
    *(compiled(walk._check_kernel, 4, COUNT=32, DIMS=128, WIDTH=width, IS_L2=True) for width in (16, 1)),
] if sys.argv[1] == "walk" else list(codecs())))
"""


def compiled(what: str, folder: Path) -> Any:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(folder)
    run = subprocess.run([sys.executable, "-c", _COMPILE, what], env=environment, capture_output=True, text=True)
    if re.search(r"(ptxas|cuobjdump).*not found|Cannot find (ptxas|cuobjdump)", run.stderr):
        pytest.skip("this Triton comes without ptxas or cuobjdump")
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout)


def test_a_walk_compiles_and_multiplies_four_bytes_at_a_time(tmp_path: Path) -> None:
    walked, checked, checked_for_one = compiled("walk", tmp_path)
    for kernel in (walked, checked, checked_for_one):
        assert kernel["cubin"] > 0
    assert "dp4a.s32.s32" in walked["ptx"]
    assert "ld.global.v4" in walked["ptx"]  # sixteen bytes of a code at a time


def test_kernels_of_codecs_compile_without_spills_and_round_as_a_cpu_does(tmp_path: Path) -> None:
    kernels = {f"{kernel['name']} {i}": kernel for i, kernel in enumerate(compiled("codecs", tmp_path))}
    assert len(kernels) == 14
    for name, kernel in kernels.items():
        assert kernel["spilled"], name
        assert not any(kernel["spilled"]), name
        # Subnormal numbers stay, and no product is fused with a sum.
        assert not re.search(r"\.ftz|\bfma\.|\.approx", kernel["ptx"]), name
    nearest = next(kernel["ptx"] for name, kernel in kernels.items() if "nearest" in name)
    assert "bar.sync" not in nearest  # all that a thread adds up is its own
    assert "st.shared" not in nearest
