"""A walk through the source of a pipeline's call, to tell what is certain to happen in it.

Nothing runs. The statements of `__call__`, and of the methods that it hands its arguments to, are
walked with values of which only this is known: None, something, true, false, or nothing at all.
Loops are walked past, and what raises behind an open question tells only that the answer is the
other one. So what is told is certain: a call that raises with these inputs, a picture whose absence
is asked about, what a scheduler is given.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from enum import Enum

from pipelines.models.signatures import (
    IMAGE_PARAMETERS,
    function_beside,
    is_scheduler,
    method,
    taken_of_scheduler,
)

DEEPEST = 5  # methods within methods
PROCESSORS = ("image_processor", "mask_processor", "feature_extractor")  # none of them takes None
NEVER_NONE = ("np", "torch", "math", "PIL")
ITERATES = ("len", "list", "tuple", "enumerate", "zip", "sorted", "sum", "int", "float")


class Value(Enum):
    NONE = "None"
    LEFT_OUT = "a picture that is not given"
    SOMETHING = "not None"
    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "anything"


NOTHING = (Value.NONE, Value.LEFT_OUT)
Values = dict[str, Value]


class Refused(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Walk:
    """One walk through a call. A block's values stand in a dict by name."""

    def __init__(self, class_name: str) -> None:
        self.class_name = class_name
        self.asks = False
        self.timestep_options: set[str] = set()
        self.members: set[str] = set()
        self.config: set[str] = set()
        self._attributes: Values = {}
        self._pipelines: dict[str, ast.Call] = {}  # those that a combined one is made of
        self._inside: list[ast.FunctionDef] = []
        self._begin()

    def _begin(self) -> None:
        """What a fresh object holds, as far as its constructor says it."""
        init = method(self.class_name, "__init__")
        for node in ast.walk(init) if init else ():
            match node:
                case ast.Assign(targets=[ast.Attribute(value=ast.Name(id="self"), attr=name)],
                                value=given):
                    constant = isinstance(given, ast.Constant) and name not in self._attributes
                    self._attributes[name] = self.value(given, {}) if constant else Value.UNKNOWN
                    if isinstance(given, ast.Call) and isinstance(given.func, ast.Name):
                        self._pipelines[name] = given

    def defaults(self, function: ast.FunctionDef) -> Values:
        """Parameter -> default, UNKNOWN where it has none."""
        arguments = function.args
        positional = [*arguments.posonlyargs, *arguments.args]
        if not _is_static(function):
            positional = positional[1:]
        defaults = [None] * len(positional) + arguments.defaults
        pairs = [*zip(positional, defaults[len(defaults) - len(positional):], strict=True),
                 *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
        values = {argument.arg: self.value(default, {}) if default else Value.UNKNOWN
                  for argument, default in pairs}
        for rest in (arguments.vararg, arguments.kwarg):
            if rest:
                values[rest.arg] = Value.SOMETHING
        return values

    def enter(self, function: ast.FunctionDef, values: Values) -> None:
        if function in self._inside or len(self._inside) >= DEEPEST:
            return
        members, config = taken_of_scheduler(function)
        self.members |= members
        self.config |= config
        self._inside.append(function)
        try:
            self.block(function.body, values)
        finally:
            self._inside.pop()

    # Statements.

    def block(self, statements: Iterable[ast.stmt], values: Values) -> bool:
        """Whether it ends the function."""
        return any(self.statement(statement, values) for statement in statements)

    def statement(self, node: ast.stmt, values: Values) -> bool:
        match node:
            case ast.Return():
                self.value(node.value, values)
                return True
            case ast.Raise():
                raise Refused(_message(node.exc))
            case ast.Assert(test=test, msg=text):
                if self.truth(test, values) is False:
                    raise Refused(_message(text or test))
            case ast.If():
                return self.branch(node.test, node.body, node.orelse, values)
            case ast.With(items=items, body=body):
                for item in items:
                    self.value(item.context_expr, values)
                return self.block(body, values)
            case ast.Assign(targets=targets, value=given):
                value = self.value(given, values)
                for target in targets:
                    self.assign(target, given, value, values)
            case ast.AnnAssign(target=target, value=given) if given:
                self.assign(target, given, self.value(given, values), values)
            case ast.Expr(value=given):
                self.value(given, values)
            case ast.For(iter=iterated):
                self.not_none(iterated, values)
                self.forget(node, values)
            case _:
                self.forget(node, values)
        return False

    def forget(self, node: ast.AST, values: Values) -> None:
        """What is assigned somewhere below a statement that may or may not run."""
        for child in ast.walk(node):
            if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
                values[child.id] = Value.UNKNOWN
            elif isinstance(child, ast.Attribute) and isinstance(child.ctx, ast.Store):
                self._attributes[child.attr] = Value.UNKNOWN

    def assign(self, target: ast.expr, given: ast.expr, value: Value, values: Values) -> None:
        match target:
            case ast.Name(id=name):
                values[name] = value
            case ast.Attribute(value=ast.Name(id="self"), attr=name):
                self._attributes[name] = value
            case ast.Tuple(elts=parts) if (isinstance(given, ast.Tuple)
                                           and len(given.elts) == len(parts)):
                parted = [self.value(part, values) for part in given.elts]
                for part, each, value in zip(parts, given.elts, parted, strict=True):
                    self.assign(part, each, value, values)
            case _:
                self.forget(target, values)

    def branch(
        self, test: ast.expr, body: list[ast.stmt], orelse: list[ast.stmt], values: Values
    ) -> bool:
        truth = self.truth(test, values)
        if truth is not None:
            return self.block(body if truth else orelse, values)
        # Either may run: one that raises only tells that it is the other.
        ways, refusals = [], []
        before = dict(self._attributes)
        for block, assumed in ((body, True), (orelse, False)):
            way = dict(values)
            self._attributes = dict(before)
            _assume(test, assumed, way)
            try:
                ways.append((self.block(block, way), way, self._attributes))
            except Refused as refused:
                refusals.append(refused)
        self._attributes = before
        if not ways:
            raise refusals[0]
        going_on = [(way, attributes) for ended, way, attributes in ways if not ended]
        for number, target in enumerate((values, self._attributes)):
            if going_on:
                merged = _merged([way[number] for way in going_on])
                target.clear()
                target.update(merged)
        return not going_on

    # Expressions.

    def truth(self, node: ast.expr, values: Values) -> bool | None:
        """None where it is not certain."""
        value = self.value(node, values)
        if value is Value.TRUE:
            return True
        return False if value in (*NOTHING, Value.FALSE) else None

    def not_none(self, node: ast.expr, values: Values) -> Value:
        value = self.value(node, values)
        if value in NOTHING:
            raise Refused(f"it needs {ast.unparse(node)}")
        return value

    def value(self, node: ast.expr | None, values: Values) -> Value:
        match node:
            case None:
                return Value.NONE
            case ast.Constant(value=None):
                return Value.NONE
            case ast.Constant(value=bool(constant)):
                return _bool(constant)
            case ast.Constant():
                return Value.SOMETHING
            case ast.Name(id=name):
                return values.get(name, Value.UNKNOWN)
            case ast.Attribute(value=ast.Name(id="self"), attr=name):
                return self._attributes.get(name, Value.UNKNOWN)
            case ast.Attribute(value=whole) | ast.Subscript(value=whole):
                self.not_none(whole, values)
                return Value.UNKNOWN
            case ast.Call():
                return self.called(node, values)
            case ast.Compare(left=left, ops=[operator], comparators=[right]):
                return self.compared(left, operator, right, values)
            case ast.BoolOp():
                return self.combined(node, values)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                truth = self.truth(operand, values)
                return Value.UNKNOWN if truth is None else _bool(not truth)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                truth = self.truth(test, values)
                if truth is not None:
                    return self.value(body if truth else orelse, values)
                return self.either(test, body, orelse, values)
            case ast.NamedExpr(target=target, value=given):
                value = self.value(given, values)
                self.assign(target, given, value, values)
                return value
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp():
                self.not_none(node.generators[0].iter, values)
                return Value.SOMETHING
            case ast.BinOp(left=left, right=right):
                self.not_none(left, values)
                self.not_none(right, values)
                return Value.SOMETHING
            case ast.List() | ast.Tuple() | ast.Dict() | ast.JoinedStr() | ast.Lambda():
                return Value.SOMETHING
        return Value.UNKNOWN

    def either(
        self, test: ast.expr, body: ast.expr, orelse: ast.expr, values: Values
    ) -> Value:
        """One of two expressions; a third outcome, that one raises, tells that it is the other."""
        outcomes, refusals = set(), []
        for expression, assumed in ((body, True), (orelse, False)):
            way = dict(values)
            _assume(test, assumed, way)
            try:
                outcomes.add(self.value(expression, way))
            except Refused as refused:
                refusals.append(refused)
        if not outcomes:
            raise refusals[0]
        return outcomes.pop() if len(outcomes) == 1 else Value.UNKNOWN

    def compared(
        self, left: ast.expr, operator: ast.cmpop, right: ast.expr, values: Values
    ) -> Value:
        first, second = self.value(left, values), self.value(right, values)
        if isinstance(right, ast.Constant) and right.value is None and isinstance(
            operator, ast.Is | ast.IsNot | ast.Eq | ast.NotEq
        ):
            self.asks |= first is Value.LEFT_OUT
            if first is Value.UNKNOWN:
                return Value.UNKNOWN
            return _bool((first in NOTHING) == isinstance(operator, ast.Is | ast.Eq))
        if isinstance(operator, ast.Lt | ast.LtE | ast.Gt | ast.GtE) and first in NOTHING:
            raise Refused(f"it needs {ast.unparse(left)}")
        if {first, second} <= {Value.TRUE, Value.FALSE} and isinstance(operator, ast.Is | ast.Eq):
            return _bool(first is second)
        return Value.UNKNOWN

    def combined(self, node: ast.BoolOp, values: Values) -> Value:
        """`and` and `or`, which look at the second only where the first leaves it open."""
        stops = isinstance(node.op, ast.Or)
        way, certain, value = dict(values), True, Value.UNKNOWN
        for number, operand in enumerate(node.values):
            try:
                value = self.value(operand, way if not certain else values)
            except Refused:
                if certain:
                    raise
                return Value.UNKNOWN
            truth = {Value.TRUE: True, Value.UNKNOWN: None, Value.SOMETHING: None}.get(value, False)
            if truth is stops:
                return value if certain else (_bool(stops) if not stops else Value.UNKNOWN)
            if truth is None and number < len(node.values) - 1:
                certain = False
                _assume(operand, not stops, way)
        if certain:
            return value
        return value if stops and value is Value.SOMETHING else Value.UNKNOWN

    def called(self, node: ast.Call, values: Values) -> Value:
        given = [self.value(argument, values) for argument in node.args]
        named = {keyword.arg: self.value(keyword.value, values) for keyword in node.keywords}
        match node.func:
            case ast.Name(id="isinstance"):
                if given[0] in NOTHING:
                    return _bool("None" in ast.unparse(node.args[1]))
                return Value.UNKNOWN
            case ast.Name(id=name) if name in ITERATES:
                if given and given[0] in NOTHING:
                    raise Refused(f"it needs {ast.unparse(node.args[0])}")
                return Value.SOMETHING
            case ast.Name(id=name):
                function = function_beside(self.class_name, name)
                if function and name.endswith("retrieve_timesteps"):
                    self._timesteps(function, node, given, named)
                elif function:
                    self.enter(function, self._bound(function, node, given, named))
            case ast.Attribute(value=ast.Name(id="self"), attr=name):
                function = method(self.class_name, name)
                if function and not _is_property(function):
                    self.enter(function, self._bound(function, node, given, named))
                elif name in self._pipelines:
                    self._inner(self._pipelines[name], node, given, named)
            case ast.Attribute(value=whole, attr="set_timesteps") if is_scheduler(whole):
                self.timestep_options |= {name for name in named if name}
            case ast.Attribute(value=whole):
                self.not_none(whole, values)
                if ast.unparse(node.func).split(".")[0] in NEVER_NONE:
                    return Value.SOMETHING
        if any(name in ast.unparse(node.func) for name in PROCESSORS):
            first = [*given[:1], *(named[name] for name in IMAGE_PARAMETERS if name in named)]
            if Value.LEFT_OUT in first:
                raise Refused("it needs a picture")
        return Value.UNKNOWN

    def _inner(
        self, made: ast.Call, node: ast.Call, given: list[Value], named: Mapping[str | None, Value]
    ) -> None:
        """The call of a pipeline inside a combined one."""
        call = method(made.func.id, "__call__")
        if call is None:
            return
        inner = Walk(made.func.id)
        inner.enter(call, inner._bound(call, node, given, named))
        if any(ast.unparse(keyword) == "scheduler=scheduler" for keyword in made.keywords):
            self.timestep_options |= inner.timestep_options
            self.members |= inner.members
            self.config |= inner.config

    def _bound(
        self, function: ast.FunctionDef, node: ast.Call, given: list[Value],
        named: Mapping[str | None, Value],
    ) -> Values:
        """What the parameters of a function hold in a call of it."""
        values = self.defaults(function)
        if None in named or any(isinstance(argument, ast.Starred) for argument in node.args):
            return dict.fromkeys(values, Value.UNKNOWN)
        names = [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]
        if node.func.__class__ is ast.Attribute and not _is_static(function):
            names = names[1:]
        return values | dict(zip(names, given, strict=False)) | {
            name: value for name, value in named.items() if name in values}

    def _timesteps(
        self, function: ast.FunctionDef, node: ast.Call, given: list[Value],
        named: Mapping[str | None, Value],
    ) -> None:
        """diffusers' retrieve_timesteps hands on `timesteps` or `sigmas` where they are there, and
        each argument that it does not know."""
        if not node.args or not is_scheduler(node.args[0]):
            return
        names = [argument.arg for argument in function.args.args]
        values = dict(zip(names, given, strict=False)) | dict(named)
        self.timestep_options |= {
            name for name, value in values.items()
            if name and (name not in names
                         or name in ("timesteps", "sigmas") and value not in NOTHING)}


def _assume(test: ast.expr, holds: bool, values: Values) -> None:
    """What a test tells of the names in it, where it holds or does not."""
    match test:
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            _assume(operand, not holds, values)
        case ast.BoolOp(op=operator, values=parts) if isinstance(operator, ast.And) == holds:
            for part in parts:
                _assume(part, holds, values)
        case ast.Compare(left=ast.Name(id=name), ops=[ast.Is() | ast.IsNot() as operator],
                         comparators=[ast.Constant(value=None)]):
            is_none = isinstance(operator, ast.Is) == holds
            if values.get(name, Value.UNKNOWN) is Value.UNKNOWN:
                values[name] = Value.NONE if is_none else Value.SOMETHING


def _merged(ways: list[Values]) -> Values:
    names = set().union(*ways)
    return {name: value.pop() if len(value) == 1 else Value.UNKNOWN for name in names
            if (value := {way.get(name, Value.UNKNOWN) for way in ways})}


def _bool(value: bool) -> Value:
    return Value.TRUE if value else Value.FALSE


def _is_static(function: ast.FunctionDef) -> bool:
    """Whether it takes no object in front: a function, or a static method."""
    arguments = [*function.args.posonlyargs, *function.args.args]
    return not arguments or arguments[0].arg not in ("self", "cls")


def _is_property(function: ast.FunctionDef) -> bool:
    return any(getattr(decorator, "id", "") == "property" for decorator in function.decorator_list)


def _message(raised: ast.expr | None) -> str:
    """What an error says, as far as it stands in the source."""
    match raised:
        case None:
            return "an error"
        case ast.Call(args=[first, *_]):
            return _message(first)
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(part.value if isinstance(part, ast.Constant)
                           else ast.unparse(part.value) for part in parts)
    return ast.unparse(raised)
