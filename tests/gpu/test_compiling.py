"""Kernels that the interpreter runs are compiled for a GPU as well, without one: Triton's package has all that this takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_COMPILE = """
import json, sys, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from vecdb.gpu import walk

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
    compiled(walk._walk_kernel, 1, WIDTH=192, WORDS=64, EF=64, LINKS=32, EXPAND=1, BITS=10, CHECKED=32, IS_INT8=True,
             HAS_OFFSETS=True, HAS_ALLOWED=True),
    compiled(walk._check_kernel, 4, COUNT=32, DIMS=128, WIDTH=16, IS_L2=True),
]))
"""


def test_a_walk_compiles_and_multiplies_four_bytes_at_a_time(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    run = subprocess.run([sys.executable, "-c", _COMPILE], env=environment, capture_output=True, text=True)
    if "ptxas" in run.stderr and "not found" in run.stderr:
        pytest.skip("this Triton comes without ptxas")
    assert run.returncode == 0, run.stderr[-2000:]
    walked, checked = json.loads(run.stdout)
    assert walked["cubin"] > 0
    assert checked["cubin"] > 0
    assert "dp4a.s32.s32" in walked["ptx"]
    assert "ld.global.v4" in walked["ptx"]  # sixteen bytes of a code at a time
