"""Compiles transformations: which scalar SQL is accepted, what it means, and which rows it cannot be computed for.

sqlglot only parses; the Polars expression is built here, node by node, each with a second expression that is true
for the rows on which the node raises. No row's failure touches its neighbours: f(batch) = the rows' f(row) together.

What an expression means:

- **NULL** goes through operators and functions as in SQL (`||` and CONCAT too); AND and OR are three-valued; a
  condition that is NULL is not taken. COALESCE, LEAST and GREATEST skip NULLs.
- **Integers** are 64 bits; a result beyond them raises, and a chain of `+` and `-` is one exact operation. `/` always
  divides as float64. `//` (also DIV) and `%` (also MOD) truncate towards zero, as SQL does; by zero they raise.
- **Floats** are float64. A result that is not finite raises (a / 0, LN(0), EXP(1000)). Columns are finite: conforming
  has seen to that. An int64 that meets a float64 becomes one, rounded to the nearest as any float is. A zero that
  comes out has no sign.
- Arithmetic is judged at the end of a chain of operators, so a chain that has a NULL operand is NULL.
- **CAST** raises where it would lose a value (1.5 or '12x' to BIGINT, 2 to BOOLEAN); TRY_CAST gives NULL there. Text
  becomes a TIMESTAMP only with an explicit offset. ROUND rounds half away from zero.
- **Branches** that are not taken do not raise: in CASE, IF, COALESCE, IN, and on the right of a decided AND or OR.
- Types are static: comparing text with a number is refused when the expression is saved, not when data comes.

`syntax` reads the text; each of `operands`, `arithmetic`, `numbers`, `conditions`, `branches`, `text` and `casts` has
the rules of its part of SQL in a table, and what no table has is refused.
"""

from engine.expressions.compilation import Compiled, compile_expression, references_of
from engine.expressions.syntax import FUNCTIONS

__all__ = ["FUNCTIONS", "Compiled", "compile_expression", "references_of"]
