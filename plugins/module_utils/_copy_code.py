# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a database would run with a superuser's rights while a superuser restores it, and could do more than compute.

A restore evaluates CHECK constraints, stored generated columns and, for the literals in its definitions, the CHECK constraints of domains as who it is
logged in as. Expressions of indexes, materialized views and statistics run as the table's owner, without a way out; triggers are made after
the rows, and defaults are not asked for.
"""

from __future__ import annotations

from typing import Any, List

from ._copy_session import rows

_SHOWN = 10
# Harmless are PostgreSQL's own immutable functions, which only compute; its stable ones but for those that run a query or look beyond their arguments;
# and the immutable ones that an extension has in C. An operator is what its function is. A cast by a function of the tenant's own runs wherever a value
# is cast, also within to_json and the check of a foreign key.
_CODE = """
WITH expressions AS (
    SELECT format('CHECK constraint %%I of %%s', c.conname, CASE c.conrelid WHEN 0 THEN c.contypid::regtype::text ELSE c.conrelid::regclass::text END)
        AS name, c.conbin::text AS tree FROM pg_constraint c WHERE c.contype = 'c' AND c.oid >= 16384
    UNION ALL SELECT format('generated column %%I of %%s', a.attname, a.attrelid::regclass), d.adbin::text
    FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum WHERE a.attgenerated = 's' AND d.oid >= 16384
), called AS (
    SELECT name, found[1]::oid AS function FROM expressions, regexp_matches(tree, ':(?:funcid|opfuncid|hashfuncid|negfuncid) ([0-9]+)', 'g') found
    UNION SELECT name, o.oprcode::oid FROM expressions, regexp_matches(tree, ':opno ([0-9]+)', 'g') found JOIN pg_operator o ON o.oid = found[1]::oid
)
SELECT name FROM called JOIN pg_proc p ON p.oid = function WHERE NOT (
    p.oid < 16384 AND (p.provolatile = 'i' OR p.provolatile = 's' AND p.proname !~ 'xml|query|cursor|^(pg|lo|ts|has|inet|txid|obj|col|row)_|setting|set_|val$')
    OR p.prolang = 13 AND p.provolatile = 'i'
    AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'))
UNION SELECT format('cast from %%s to %%s', s.castsource::regtype, s.casttarget::regtype) FROM pg_cast s JOIN pg_proc p ON p.oid = s.castfunc
WHERE s.oid >= 16384 AND p.oid >= 16384
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_cast'::regclass AND d.objid = s.oid AND d.deptype = 'e')
ORDER BY 1 LIMIT %(shown)s
"""


def found(source: Any) -> List[str]:
    """The first of them, named for a message. *source* is a session in the database."""
    return [row["name"] for row in rows(source, _CODE, {"shown": _SHOWN})]
