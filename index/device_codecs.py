"""Codecs on a GPU: fitting, encoding and decoding of many vectors, for the same `Codec` and the same bytes as on the CPU.

What differs is said in gpu/codecs.py: bytes that were rounded from lengths, sums of float64 numbers.
PCA and product quantisation are fitted on the device; what else is fitted, and formats that gpu/codecs.py lacks, are the CPU's.
Needs the extra [gpu].
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vecdb.errors import InvalidInput
from vecdb.index.arguments import as_vectors
from vecdb.index.base import Vectors
from vecdb.index.codecs.base import Codes, Format, Reducer
from vecdb.index.codecs.codec import Codec, check_finite
from vecdb.index.codecs.float8 import Float8
from vecdb.index.codecs.levels import Levels, Pairs
from vecdb.index.codecs.linear import Pca, Truncation
from vecdb.index.codecs.products import Books, ProductQuantiser, fit_books, part_of
from vecdb.index.staging import in_blocks

if TYPE_CHECKING:
    import torch

_ROWS_AT_ONCE = 1 << 16
_BYTES_AT_ONCE = 1 << 25  # of vectors: page-locked buffers are as large, and take a while to make
_LEAST_AT_ONCE = 1 << 8
_SQUARED = 4_096  # dimensions: beyond, PCA does not square them


class DeviceCodec:
    """A codec whose work a device does ("cuda:0"; "cpu" does the same by the same operations, to compare with).

    Raises MissingExtra without the extra [gpu], InvalidInput without such a device.
    """

    def __init__(self, codec: Codec, *, device: str = "cuda:0") -> None:
        from vecdb.gpu.launch import device_of, need_triton

        need_triton()
        self.codec = codec
        self.device = device_of(device)

    def __repr__(self) -> str:
        return f"<DeviceCodec {self.codec.text} on {self.device}>"

    def fit(self, sample: ArrayLike, *, seed: int = 0) -> Codec:
        """As `Codec.fit`. The sample must fit into the device's memory."""
        codec = self.codec
        values = as_vectors(sample, codec.dimension)
        if not len(values):
            raise InvalidInput(f"the codec {codec.text!r} is fitted to no vector at all; give a sample of them")
        check_finite(values)
        reducers: list[Reducer] = []
        for reducer in codec.reducers:
            is_squared = isinstance(reducer, Pca) and reducer.method != "randomised" and reducer.size_in <= _SQUARED
            if isinstance(reducer, Pca) and is_squared:
                reducers.append(reducer.fit(values, codec.metric, seed, moment=self._moment))
            else:
                reducers.append(reducer.fit(values, codec.metric, seed))
            values = self._in_blocks(self._reducing(reducers[-1:], is_unit=False), values)
        if codec.metric == "cosine" and reducers:
            values = self._in_blocks(self._reducing([], is_unit=True), values)
        made = codec.format
        if isinstance(made, ProductQuantiser):
            sampled = part_of(values)
            made = made.with_arrays({"books": fit_books(sampled, made.parts, seed, means=self._means)})
        else:
            made = made.fit(values, seed)
        return replace(codec, reducers=tuple(reducers), format=made, is_fitted=True)

    def encode(self, vectors: ArrayLike) -> Codes:
        """As `Codec.encode`. Blocks shrink where the device has no room; raises OutOfDeviceMemory if the smallest have none."""
        import torch

        values = as_vectors(vectors, self.codec.dimension)
        encode, largest = self.encoding(), []

        def watched(block: torch.Tensor) -> torch.Tensor:
            if len(block):
                largest.append(torch.linalg.vector_norm(block, float("inf")))  # keeps NaN
            return encode(block)

        made: NDArray[Any] = self._in_blocks(watched, values)
        if largest and not bool(torch.stack(largest).isfinite().all()):
            check_finite(values)  # says which
        return made if self._is_coded_here else self.codec.format.encode(made)

    def encoding(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """What makes codes of finite vectors (N, D) on the device; or reduced vectors, where the format is left to the CPU."""
        self._check_fitted()
        is_unit = self.codec.metric == "cosine" and bool(self.codec.reducers)
        encode = _encoder(self.codec.format, self._put) or (lambda x: x)
        reduce = self._reducing(self.codec.reducers, is_unit=is_unit)
        return lambda x: encode(reduce(x))

    @property
    def _is_coded_here(self) -> bool:
        return _encoder(self.codec.format, self._put) is not None

    def decode(self, codes: Codes) -> Vectors:
        """As `Codec.decode`."""
        restore = self.decoding()
        if (
            restore is None
            or codes.dtype != np.uint8
            or codes.ndim != 2
            or codes.shape[1] != self.codec.bytes_per_vector
        ):
            return self.codec.decode(codes)
        vectors: Vectors = self._in_blocks(restore, codes)
        return vectors

    def decoding(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """What makes vectors (N, D) of codes (N, bytes_per_vector) on the device; None where the format is left to the CPU."""
        from vecdb.gpu import codecs

        self._check_fitted()
        decode = _decoder(self.codec.format, self._put)
        if decode is None:
            return None
        steps = [decode, *(_restorer(reducer, self._put) for reducer in reversed(self.codec.reducers))]
        if self.codec.metric == "cosine" and not self.codec.is_float32:
            steps.append(codecs.unit)
        return partial(_in_turn, steps)

    def _check_fitted(self) -> None:
        if not self.codec.is_fitted:
            raise InvalidInput(f"the codec {self.codec.text!r} is not fitted; use fit(sample)")

    def _put(self, array: NDArray[Any]) -> torch.Tensor:
        import torch

        return torch.from_numpy(np.array(array)).to(self.device)

    def _reducing(self, reducers: Iterable[Reducer], *, is_unit: bool) -> _Work:
        """What takes vectors through reducers, whose arrays are put on the device once."""
        from vecdb.gpu import codecs

        steps = [_reducer(reducer, self._put) for reducer in reducers]
        if is_unit:
            steps.append(codecs.unit)
        return partial(_in_turn, steps)

    def _in_blocks(self, work: _Work, rows: NDArray[Any]) -> NDArray[Any]:
        """work of blocks of rows, which are copied to the device and back."""
        most = max(_LEAST_AT_ONCE, min(_ROWS_AT_ONCE, _BYTES_AT_ONCE // (4 * self.codec.dimension)))
        return in_blocks(work, rows, self.device, most=most, least=_LEAST_AT_ONCE)

    def _moment(self, sample: Vectors, mean: Vectors) -> NDArray[np.float64]:
        from vecdb.gpu import codecs

        total = np.zeros((sample.shape[1],) * 2)
        for first in range(0, len(sample), _ROWS_AT_ONCE):
            block = self._put(sample[first : first + _ROWS_AT_ONCE])
            total += codecs.second_moment(block, self._put(mean)).cpu().numpy()
        return total

    def _means(self, padded: Vectors, books: Books) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        import torch

        from vecdb.gpu import codecs, kmeans

        parts, size, count = books.shape
        values = self._put(padded)
        cut = values.view(len(padded), parts, size)
        assigned = codecs.encode_parts(values, self._put(books)).long()
        found = [kmeans.sums_of(cut[:, m], assigned[:, m], count) for m in range(parts)]
        sums, counts = (torch.stack(each).cpu().numpy() for each in zip(*found))
        return sums, counts


_Put = Callable[[NDArray[Any]], "torch.Tensor"]
_Work = Callable[["torch.Tensor"], "torch.Tensor"]


def _encoder(made: Format, put: _Put) -> _Work | None:
    """What makes bytes of reduced vectors; None where the device has no way."""
    from vecdb.gpu import codecs

    arrays = {name: put(array) for name, array in made.arrays().items()}
    if isinstance(made, Float8):
        return lambda x: codecs.encode_float8(x, made.kind, arrays.get("factors"))
    if isinstance(made, Levels) and not isinstance(made, Pairs):
        return lambda x: codecs.encode_levels(x, arrays["lows"], 1 / arrays["steps"], 256)
    if isinstance(made, ProductQuantiser):
        return lambda x: codecs.encode_parts(x, arrays["books"])
    return None


def _decoder(made: Format, put: _Put) -> _Work | None:
    from vecdb.gpu import codecs

    arrays = {name: put(array) for name, array in made.arrays().items()}
    if isinstance(made, Float8):
        return lambda x: codecs.decode_float8(x, made.size, made.kind, arrays.get("factors"))
    if isinstance(made, Levels) and not isinstance(made, Pairs):
        return lambda x: codecs.decode_levels(x, arrays["lows"], arrays["steps"])
    if isinstance(made, ProductQuantiser):
        return lambda x: codecs.decode_parts(x, arrays["books"])[:, : made.size]
    return None


def _reducer(reducer: Reducer, put: _Put) -> _Work:
    from vecdb.gpu import codecs

    if isinstance(reducer, Truncation):
        return lambda x: x[:, : reducer.size].contiguous()
    arrays = reducer.arrays()
    mean, basis, scales = (put(arrays[name]) for name in ("mean", "basis", "scales"))
    return lambda x: codecs.reduce_by(x, mean, basis, scales)


def _restorer(reducer: Reducer, put: _Put) -> _Work:
    import torch

    from vecdb.gpu import codecs

    if isinstance(reducer, Truncation):
        return lambda x: torch.nn.functional.pad(x, (0, reducer.size_in - reducer.size))
    arrays = reducer.arrays()
    mean, basis, scales = (put(arrays[name]) for name in ("mean", "basis", "scales"))
    return lambda x: codecs.restore_by(x, mean, basis, scales)


def _in_turn(steps: Iterable[_Work], block: torch.Tensor) -> torch.Tensor:
    for step in steps:
        block = step(block)
    return block
