"""Makes machine code for products of small matrices and for Adam, for the processor at hand.

LLVM compiles the code when it is first needed, in a tenth of a second and without a C compiler.
Libraries copy biases and rectify in passes of their own, and some use half of the vector units of
some processors. Here a tile's sums stay in registers from the first term to the last. The tile is
stored once, and it is rectified or masked on the way.

Every network's products are computed by the same instructions, whatever its place. So a network's
numbers never depend on its neighbours. `models.products` is the interface.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from llvmlite import binding, ir

Value = Any  # a value of llvmlite.ir
Operand = tuple[Value, Value]  # the address of a matrix, and how far its rows lie apart

KERNELS = ("plain", "masked", "affine", "rectified", "dots", "adam")
INTEGERS = 17
"""A product is so many integers: the kernel's place in KERNELS, rows, columns, depth and a_k; then
for out, a, b and c the address, and how far networks and rows lie apart. Sizes and strides count
numbers. Columns have stride 1. For network i

- plain writes out[i, row, col] = sum over k of a[i, row, k] b[i, k, col]; a_k is the stride of k.
- masked writes 0 where c[i, row, col] is not positive.
- affine adds c[i, row, 0]. rectified also writes 0 for negative results.
- dots adds to out[i, row, col] the sum over k of a[i, row, k] b[i, col, k], with k of stride 1.
- adam moves the one row of out by Adam (Kingma & Ba 2015, algorithm 1) and sets its gradient a[i]
  to 0. The two rows of b[i] are the moments. c[i] has the SCALARS of the step.
"""
SCALARS = (
    "lr / (1 - beta1^t)",
    "1 / sqrt(1 - beta2^t)",
    "beta1",
    "1 - beta1",
    "beta2",
    "1 - beta2",
)
Run = Callable[[int, int, Any], None]

EPSILON = 1e-8  # Adam's

_INT, _INT32, _POINTER = ir.IntType(64), ir.IntType(32), ir.PointerType()


@cache
def kernels(bits: int, vector: int | None = None) -> Run:
    """Returns run(n, count, products), for floating-point numbers of 32 or 64 bits.

    `run` computes all `count` products for the first of n networks, then for the next network. So
    what a product writes is in the processor's cache when the next product reads it. `products`
    is a ctypes array of INTEGERS for each product. A vector has 128, 256 or 512 bits, by default
    as many as the processor's.
    """
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    features, triple = binding.get_host_cpu_features(), binding.get_process_triple()
    if vector is None:
        vector = 512 if features.get("avx512f") else 256 if features.get("avx") else 128
    lanes = max(4, vector // bits)
    # A tile's height -> its vectors side by side, and heights of tiles of dot products. Sums and
    # factors of a tile fit the vector registers, which are 32 or 16.
    tiles, heights = {8: 2, 2: 8, 1: 8}, (4, 2, 1)
    if vector < 512 and not triple.startswith(("aarch64", "arm64")):
        tiles, heights = {6: 2, 2: 4, 1: 4}, (2, 1)
    module = ir.Module()
    for name in ("plain", "masked", "affine", "rectified"):
        _product(_Code(module, name, bits), lanes, tiles)
    _dots(_Code(module, "dots", bits), lanes, heights)
    _adam(_Code(module, "adam", bits), lanes)
    _run(_Code(module, "run", bits))
    machine = binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=features.flatten(), opt=3
    )
    engine = binding.create_mcjit_compiler(binding.parse_assembly(str(module)), machine)
    engine.finalize_object()
    run = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
    _engines.append(engine)
    return run(engine.get_function_address("run"))


_engines: list[Any] = []  # an engine owns the code that it has made


class _Code:
    """Writes a function of three integers: addresses, loops, and vectors of numbers."""

    def __init__(self, module: ir.Module, name: str, bits: int) -> None:
        self.module, self.name, self.bytes = module, name, bits // 8
        self.number = ir.FloatType() if bits == 32 else ir.DoubleType()
        self.function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_INT] * 3), name)
        self.build = ir.IRBuilder(self.function.append_basic_block())

    def integers(self, address: Value, count: int) -> list[Value]:
        """Returns so many integers that lie at this address."""
        places = [self.build.inttoptr(self.plus(address, 8 * i), _POINTER) for i in range(count)]
        return [self.build.load(place, typ=_INT) for place in places]

    def plus(self, value: Value, more: int) -> Value:
        return self.build.add(value, ir.Constant(_INT, more))

    def at(self, address: Value, index: Value, stride: Value | int = 1) -> Value:
        """Returns the address that lies `index` times `stride` numbers further on."""
        stride = ir.Constant(_INT, stride) if isinstance(stride, int) else stride
        numbers = self.build.mul(index, stride)
        size = ir.Constant(_INT, self.bytes)
        return self.build.add(address, self.build.mul(numbers, size))

    def load(self, address: Value, lanes: int) -> Value:
        kind, place = ir.VectorType(self.number, lanes), self.build.inttoptr(address, _POINTER)
        return self.build.load(place, align=self.bytes, typ=kind)

    def store(self, vector: Value, address: Value) -> None:
        self.build.store(vector, self.build.inttoptr(address, _POINTER), align=self.bytes)

    def spread(self, address: Value, lanes: int) -> Value:
        """Returns a vector that has the number at this address in all lanes."""
        one = self.load(address, 1)
        return self.shuffle(one, one, [0] * lanes)

    def zeros(self, lanes: int) -> Value:
        return ir.Constant(ir.VectorType(self.number, lanes), [0.0] * lanes)

    def shuffle(self, x: Value, y: Value, lanes: Sequence[int]) -> Value:
        """Returns a vector of these lanes of x and y; the lanes of y are numbered after x's."""
        order = ir.Constant(ir.VectorType(_INT32, len(lanes)), list(lanes))
        return self.build.shuffle_vector(x, y, order)

    def intrinsic(self, name: str, *vectors: Value) -> Value:
        kind = vectors[0].type
        name = f"llvm.{name}.v{kind.count}f{8 * self.bytes}"
        of = ir.FunctionType(kind, [kind] * len(vectors))
        found = self.module.globals.get(name) or ir.Function(self.module, of, name)
        return self.build.call(found, vectors)

    def fma(self, x: Value, y: Value, z: Value) -> Value:
        """Returns x y + z, rounded once where the processor can."""
        return self.intrinsic("fmuladd", x, y, z)

    def loop(
        self,
        start: Value,
        stop: Value,
        step: int,
        body: Callable[..., Sequence[Value] | None],
        carried: Sequence[Value] = (),
    ) -> Sequence[Value]:
        """Runs carried = body(i, *carried) for i in range(start, stop, step); returns `carried`."""
        build, before = self.build, self.build.block
        head, inside, after = (self.function.append_basic_block() for _ in range(3))
        build.branch(head)
        build.position_at_end(head)
        phis = [build.phi(value.type) for value in (start, *carried)]
        for phi, value in zip(phis, (start, *carried), strict=True):
            phi.add_incoming(value, before)
        build.cbranch(build.icmp_signed("<", phis[0], stop), inside, after)
        build.position_at_end(inside)
        found = body(*phis) or ()
        for phi, value in zip(phis, (self.plus(phis[0], step), *found), strict=True):
            phi.add_incoming(value, build.block)
        build.branch(head)
        build.position_at_end(after)
        return phis[1:]

    def blocks(
        self, total: Value, sizes: Sequence[int], body: Callable[[Value, int], None]
    ) -> None:
        """Cuts range(total) into blocks of the first size, and what remains into the next size."""
        start = ir.Constant(_INT, 0)
        for size in sizes:
            stop = self.floor(total, size)
            self.loop(start, stop, size, lambda i, size=size: body(i, size))
            start = stop

    def floor(self, total: Value, size: int) -> Value:
        """Returns the largest multiple of `size` up to `total`."""
        return self.build.sub(total, self.build.srem(total, ir.Constant(_INT, size)))

    def operands(self) -> tuple[list[Value], list[Operand]]:
        """Returns sizes and operands of a product, for the network of the function's arguments."""
        i, product, _ = self.function.args
        _, *sizes = self.integers(product, 5)
        places = self.integers(self.plus(product, 5 * 8), 12)
        found = [(self.at(places[j], i, places[j + 1]), places[j + 2]) for j in range(0, 12, 3)]
        return sizes, found


def _run(code: _Code) -> None:
    """Writes `run`."""
    n, count, products = code.function.args
    zero = ir.Constant(_INT, 0)

    def product(i: Value, k: Value) -> None:
        address = code.at(products, k, INTEGERS * 8 // code.bytes)
        (kernel,) = code.integers(address, 1)
        after = code.function.append_basic_block()
        choice = code.build.switch(kernel, after)
        for number, name in enumerate(KERNELS):
            block = code.function.append_basic_block()
            choice.add_case(ir.Constant(_INT, number), block)
            code.build.position_at_end(block)
            code.build.call(code.module.get_global(name), [i, address, zero])
            code.build.branch(after)
        code.build.position_at_end(after)

    code.loop(zero, n, 1, lambda i: code.loop(zero, count, 1, lambda k: product(i, k)) and None)
    code.build.ret_void()


def _product(code: _Code, lanes: int, tiles: Mapping[int, int]) -> None:
    """Writes plain, masked, affine or rectified, by the code's name."""
    build, zero = code.build, ir.Constant(_INT, 0)
    (rows, columns, depth, a_k), ((out, out_r), (a, a_r), (b, b_k), (c, c_r)) = code.operands()

    def tile(row: Value, column: Value, height: int, vectors: int, lanes: int) -> None:
        own = [code.plus(row, j) for j in range(height)]
        starts = [code.at(a, each, a_r) for each in own]
        sums = [code.zeros(lanes)] * (height * vectors)
        if code.name in ("affine", "rectified"):
            biases = [code.spread(code.at(c, each, c_r), lanes) for each in own]
            sums = [bias for bias in biases for _ in range(vectors)]

        def term(k: Value, *sums: Value) -> list[Value]:
            here = code.at(code.at(b, k, b_k), column)
            steps = range(0, vectors * lanes * code.bytes, lanes * code.bytes)
            ys = [code.load(code.plus(here, step), lanes) for step in steps]
            xs = [code.spread(code.at(start, k, a_k), lanes) for start in starts]
            factors = [(x, y) for x in xs for y in ys]
            return [code.fma(x, y, sum) for (x, y), sum in zip(factors, sums, strict=True)]

        found = iter(code.loop(zero, depth, 1, term, sums))
        for each in own:
            for step in range(0, vectors * lanes, lanes):
                value, place = next(found), code.plus(column, step)
                decides = value
                if code.name == "masked":
                    decides = code.load(code.at(code.at(c, each, c_r), place), lanes)
                if code.name in ("masked", "rectified"):
                    # Numbers that are no numbers pass, as through torch's ReLU.
                    keep = build.fcmp_unordered(">", decides, code.zeros(lanes))
                    value = build.select(keep, value, code.zeros(lanes))
                code.store(value, code.at(code.at(out, each, out_r), place))

    def strip(row: Value, height: int) -> None:
        def block(column: Value, width: int) -> None:
            tile(row, column, height, max(1, width // lanes), min(width, lanes))

        code.blocks(columns, (tiles[height] * lanes, lanes, 1), block)

    code.blocks(rows, tuple(tiles), strip)
    build.ret_void()


def _dots(code: _Code, lanes: int, heights: Sequence[int]) -> None:
    """Writes `dots`: products are summed lane by lane, and then over the lanes."""
    build, zero = code.build, ir.Constant(_INT, 0)
    (rows, columns, depth, _), ((out, out_r), (a, a_r), (b, b_r), _) = code.operands()
    whole = code.floor(depth, lanes)

    def over_lanes(vectors: list[Value]) -> Value:
        """Returns a vector with the sum of each of one, two or four vectors."""
        size = 1  # a vector holds partial sums of so many vectors side by side, again and again
        while len(vectors) > 1:
            starts = range(0, lanes, 2 * size)
            first = [s + j + side for s in starts for side in (0, lanes) for j in range(size)]
            second = [lane + size for lane in first]
            vectors = [
                build.fadd(code.shuffle(x, y, first), code.shuffle(x, y, second))
                for x, y in zip(vectors[::2], vectors[1::2], strict=True)
            ]
            size *= 2
        (found,) = vectors
        half = lanes // 2
        while half >= size:
            low, high = range(half), range(half, 2 * half)
            found = build.fadd(code.shuffle(found, found, low), code.shuffle(found, found, high))
            half //= 2
        return found

    def tile(row: Value, column: Value, height: int, width: int) -> None:
        lefts = [code.at(a, code.plus(row, j), a_r) for j in range(height)]
        rights = [code.at(b, code.plus(column, j), b_r) for j in range(width)]

        def terms(k: Value, *sums: Value) -> list[Value]:
            ys = [code.load(code.at(right, k), lanes) for right in rights]
            factors = [(code.load(code.at(left, k), lanes), y) for left in lefts for y in ys]
            return [code.fma(x, y, sum) for (x, y), sum in zip(factors, sums, strict=True)]

        def term(k: Value, *sums: Value) -> list[Value]:
            """Adds what is left of a batch that the lanes do not divide."""
            ys, *others = [code.load(code.at(right, k), 1) for right in rights]
            for j, y in enumerate(others, 1):
                ys = code.shuffle(ys, code.shuffle(y, y, [0] * j), range(j + 1))
            xs = [code.spread(code.at(left, k), width) for left in lefts]
            return [code.fma(x, ys, sum) for x, sum in zip(xs, sums, strict=True)]

        sums = code.loop(zero, whole, lanes, terms, [code.zeros(lanes)] * (height * width))
        totals = [over_lanes(list(sums[j : j + width])) for j in range(0, len(sums), width)]
        for j, total in enumerate(code.loop(whole, depth, 1, term, totals)):
            place = code.at(code.at(out, code.plus(row, j), out_r), column)
            code.store(build.fadd(code.load(place, width), total), place)

    def strip(row: Value, height: int) -> None:
        code.blocks(columns, (4, 1), lambda column, width: tile(row, column, height, width))

    code.blocks(rows, heights, strip)
    build.ret_void()


def _adam(code: _Code, lanes: int) -> None:
    """Writes `adam`."""
    build = code.build
    (_, columns, *_), ((out, _), (a, _), (b, b_r), (c, _)) = code.operands()

    def block(column: Value, lanes: int) -> None:
        places = [code.plus(c, i * code.bytes) for i in range(len(SCALARS))]
        rate, root, beta1, rest1, beta2, rest2 = [code.spread(place, lanes) for place in places]
        small = ir.Constant(ir.VectorType(code.number, lanes), [EPSILON] * lanes)
        of_out, of_g, of_mean = (code.at(start, column) for start in (out, a, b))
        of_square = code.at(of_mean, b_r)
        g = code.load(of_g, lanes)
        mean = code.fma(beta1, code.load(of_mean, lanes), build.fmul(rest1, g))
        scaled = build.fmul(rest2, build.fmul(g, g))
        square = code.fma(beta2, code.load(of_square, lanes), scaled)
        size = code.fma(code.intrinsic("sqrt", square), root, small)
        moved = build.fdiv(build.fmul(rate, mean), size)
        code.store(build.fsub(code.load(of_out, lanes), moved), of_out)
        code.store(mean, of_mean)
        code.store(square, of_square)
        code.store(code.zeros(lanes), of_g)

    code.blocks(columns, (lanes, 1), block)
    build.ret_void()
