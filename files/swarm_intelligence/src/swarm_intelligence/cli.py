# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""bitnet-cli: what is done with models, kernels, keys and the database outside the running service."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import convert, download, i2s, known_answer, perplexity, synthetic
from .auth import SCOPES
from .cpu import CpuError
from .engine_run import EngineError, running
from .gguf_check import check_servable, describe, file_sha256, read_record, record_path, write_record
from .gguf_file import GGUFFile, ModelError
from .settings import SettingsError
from .tokenizer import Tokenizer
from .verify import verify, verify_variant

OK, FAILED, USAGE, IMPOSSIBLE, INCONCLUSIVE = 0, 1, 2, 3, 4
EXIT_CODES = """exit codes:
  0  done, or the check passed
  1  the check failed: a model that cannot be served, kernels or a slot that compute wrongly
  2  wrong options
  3  it could not be done: network, disk, missing file, deadline; the message says what to do
  4  inconclusive: nothing failed, but nothing was proven either
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; errors are one line on stderr."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        return code
    except (ModelError, EngineError, SettingsError, CpuError) as error:
        return _fail(str(error), options.failure)
    except OSError as error:
        what = f"{error.filename or 'the disk'}: {error.strerror or error}"
        return _fail(f"{what}; look at its permissions and space.", IMPOSSIBLE)
    except KeyboardInterrupt:
        return _fail("interrupted; run the same command to continue.", IMPOSSIBLE)


def _fail(message: str, code: int) -> int:
    print(f"bitnet-cli: {message}", file=sys.stderr)
    return code


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _show(options: argparse.Namespace, document: Any, text: str) -> None:
    print(json.dumps(document, sort_keys=True) if options.json else text)


def _lines(document: dict[str, Any]) -> str:
    return "\n".join(f"{key}: {value}" for key, value in document.items() if key not in ("known_answer", "held_out"))


# ---- commands ----


def _synthetic(options: argparse.Namespace) -> int:
    output: Path = options.output
    temporary = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        synthetic.write(temporary, options.seed, options.layers, options.type)
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)
    if options.type == "i2_s":
        document = describe(GGUFFile(output))
    else:
        document = write_record(
            output, known_answer.compute(GGUFFile(output), synthetic.known_prompts(), synthetic.TOLERANCE)
        )
    _show(options, document, _lines(document))
    return OK


def _fetch(options: argparse.Namespace) -> int:
    url, sha256 = options.url, options.sha256
    if options.name:
        published = download.CATALOGUE[options.name]
        url, sha256 = url or published.url, sha256 or published.sha256
    if not url or not sha256:
        raise ModelError(
            "--url and --sha256 are both needed (or --name); a hub shows the sha256 on the file's page, "
            "a local file's comes from sha256sum."
        )
    if options.mirror:
        url = f"{options.mirror.rstrip('/')}/{url.rsplit('/', 1)[-1]}"
    changed = download.fetch(url, sha256, options.output, deadline=options.deadline, retries=options.retries, say=_say)
    document = {"changed": changed, "output": str(options.output), "sha256": sha256}
    _show(options, document, f"{options.output}: {'downloaded' if changed else 'already there'}, sha256 {sha256}")
    return OK


def _convert(options: argparse.Namespace) -> int:
    source, output, kernels = options.input, options.output, options.kernels
    convert.convert(
        source, output, kernels, variant=options.variant, ordering=options.ordering, threads=options.threads,
        deadline=options.deadline, say=_say,
    )  # fmt: skip
    answers = None if options.no_known_answer else _answers(options, output)
    document = write_record(output, answers, options.name)
    _show(options, document, _lines(document))
    return OK


def _answers(options: argparse.Namespace, model: Path) -> list[dict[str, Any]]:
    """Known answers of a model whose tokenizer only the engine knows."""
    variant = options.variant or convert.runnable_variant(options.kernels)
    with running(options.kernels, variant, model, threads=options.threads, deadline=options.deadline) as engine:
        prompts = known_answer.tokenised(engine.tokens)
    _say("computing the known answers with NumPy (about a minute for a model of 2 billion weights)")
    return known_answer.compute(GGUFFile(model), prompts)


def _inspect(options: argparse.Namespace) -> int:
    model = GGUFFile(options.file)
    metadata = {
        key: value if not isinstance(value, list) else f"{len(value)} entries"
        for key, value in sorted(model.metadata.items())
    }
    document = {**describe(model), "metadata": metadata}
    tensors = {tensor.name: f"{tensor.type_name} {list(tensor.shape)}" for tensor in model.tensors.values()}
    if options.tensors:
        document["tensor_list"] = tensors
    nested = {**document, "metadata": "", "tensor_list": ""}
    text = _lines({key: value for key, value in nested.items() if value != ""}) + "\n" + _lines(metadata)
    _show(options, document, text + ("\n" + _lines(tensors) if options.tensors else ""))
    return OK


def _check(options: argparse.Namespace) -> int:
    document = check_servable(options.file)
    if options.record:
        kept = _kept(options.file)
        answers = _answers(options, options.file) if options.kernels else kept.get("known_answer")
        document = write_record(options.file, answers, kept.get("name"), kept.get("held_out"))
    _show(options, document, _lines(document))
    return OK


def _kept(model: Path) -> dict[str, Any]:
    """The record that is about to be written again, when it was of the same file."""
    if not record_path(model).exists():
        return {}
    record = read_record(model)
    return record if record.get("sha256") == file_sha256(model) else {}


def _perplexity(options: argparse.Namespace) -> int:
    if options.record:
        return _record_perplexity(options)
    beside = options.expect or options.model
    if beside is None or (options.kernels and not options.model):
        raise ModelError("--model is needed with --kernels, and --expect (or --model) with --url.")
    held_out, text = perplexity.read_held_out(read_record(beside), options.text)
    if options.kernels:
        variant = options.variant or convert.runnable_variant(options.kernels)
        finding = perplexity.measure(
            options.kernels, variant, options.model, held_out, text,
            tolerance=options.tolerance, threads=options.threads, deadline=options.deadline or 600,
            positions=options.positions, emulator=options.emulator,
        )  # fmt: skip
    else:
        if not options.token_file:
            raise ModelError("--token-file is needed with --url.")
        finding = perplexity.ask(
            options.url, known_answer.read_token(options.token_file), held_out, text,
            tolerance=options.tolerance, deadline=options.deadline or 600,
            verify=str(options.ca_file) if options.ca_file else True,
        )  # fmt: skip
    document = finding.document()
    _show(options, document, f"{document['verdict']}: {finding.reason}")
    return {True: OK, False: FAILED, None: INCONCLUSIVE}[finding.passed]


def _record_perplexity(options: argparse.Namespace) -> int:
    """The reference's side, written into model.json; no engine has a part in it."""
    if not options.model:
        raise ModelError("--model is needed with --record.")
    model = GGUFFile(options.model)
    text = perplexity.read_text(options.text)
    held_out = perplexity.compute(model, text, options.text.name, options.positions)
    kept = _kept(options.model)
    answers = kept.get("known_answer") or known_answer.compute(model, known_answer.tokenised(Tokenizer(model).encode))
    write_record(options.model, answers, kept.get("name"), held_out)
    document = {key: value for key, value in held_out.items() if key != "cases"}
    document["positions"] = len(held_out["cases"])
    _show(options, document, _lines(document))
    return OK


def _verify(options: argparse.Namespace) -> int:
    keywords = {"threads": options.threads, "deadline": options.deadline}
    if options.emulator and not options.variant:
        raise ModelError("--emulator is for one variant, since each wants another CPU; name it with --variant.")
    if options.variant:
        verdict = verify_variant(
            options.kernels, options.variant, options.model, requires=options.requires, reference=options.reference,
            emulator=options.emulator, **keywords,
        )  # fmt: skip
        verdicts: dict[str, Any] = {options.variant: verdict}
        document: dict[str, Any] = {"variant": options.variant, **verdict}
    else:
        verdicts = document = verify(options.kernels, None, options.model, **keywords)
    _show(options, document, "\n".join(_sentence(name, verdict) for name, verdict in verdicts.items()))
    if any(verdict["ran"] and not verdict["passed"] for verdict in verdicts.values()):
        return FAILED
    return OK if any(verdict["ran"] for verdict in verdicts.values()) else INCONCLUSIVE


def _sentence(name: str, verdict: Any) -> str:
    if not verdict["ran"]:
        return f"{name}: not run, {verdict['reason']}"
    result = "agrees with the reference" if verdict["passed"] else "DOES NOT AGREE with the reference"
    return f"{name}: {result}, cosine {verdict['cosine']}, relative L2 {verdict['relative_l2']} ({verdict['reason']})"


def _answer(options: argparse.Namespace) -> int:
    record = read_record(options.expect)
    token = known_answer.read_token(options.token_file)
    trust: bool | str = str(options.ca_file) if options.ca_file else True
    finding = known_answer.ask(options.url, token, record, deadline=options.deadline, verify=trust)
    document = finding.document()
    _show(options, document, f"{document['verdict']}: {finding.reason}")
    return {True: OK, False: FAILED, None: INCONCLUSIVE}[finding.passed]


def _database(options: argparse.Namespace) -> Any:
    """The libraries of the database are for these commands only."""
    from .database import Source

    if options.url_file is None:
        raise SettingsError(
            "--url-file is needed (or BITNET_DATABASE_URL_FILE): the file with the database's URL, as in "
            "postgresql://USER:PASSWORD@HOST:PORT/DATABASE."
        )
    return Source(options.url_file, options.ca_file, "--url-file")


def _migrate(options: argparse.Namespace) -> int:
    from psycopg import Error as DriverError
    from sqlalchemy.exc import DBAPIError

    from .database import reason_of
    from .migrate import MigrationError, upgrade

    try:
        before, after = upgrade(
            _database(options), options.to or "", contract=options.contract, lose_data=options.lose_data
        )
    except MigrationError as error:
        return _fail(str(error), FAILED)
    except (DBAPIError, DriverError) as error:
        return _fail(f"the database cannot be migrated: {reason_of(error)}", IMPOSSIBLE)
    document = {"changed": before != after, "before": before, "after": after}
    _show(options, document, f"schema {after}" + (f", before {before or 'none'}" if before != after else ", as it was"))
    return OK


def _check_database(options: argparse.Namespace) -> int:
    from psycopg import Error as DriverError
    from sqlalchemy.exc import DBAPIError

    from .database import reason_of
    from .migrate import look
    from .schema import MAXIMUM, MINIMUM

    minimum, maximum = options.release or (MINIMUM, MAXIMUM)
    try:
        schema = look(_database(options))
    except (DBAPIError, DriverError) as error:
        return _fail(f"the database cannot be asked: {reason_of(error)}", IMPOSSIBLE)
    problem = schema.problem(minimum, maximum)
    document = {"schema": schema.document(), "release": {"minimum": minimum, "maximum": maximum}, "problem": problem}
    _show(options, document, problem or f"schema {schema.revision} lets this release work ({minimum} to {maximum})")
    return FAILED if problem else OK


def _keys(options: argparse.Namespace) -> int:
    """Create, list or revoke, on one connection."""
    import asyncio

    from .database import Away, Database
    from .keys import BadKey

    async def run() -> int:
        database = Database(_database(options), "never")
        try:
            await database.look()
            async with database.begin() as connection:
                return int(await options.work(options, connection))
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except BadKey as error:
        return _fail(str(error), FAILED)
    except Away as error:
        return _fail(f"the database cannot be used: {error}", IMPOSSIBLE)


async def _create_key(options: argparse.Namespace, connection: Any) -> int:
    from .keys import create

    key, row = await create(connection, options.name, options.scope, options.days, options.requests_per_minute)
    _say("The key is shown this once, and kept nowhere.")
    _show(options, {**row, "key": key}, key)
    return OK


async def _list_keys(options: argparse.Namespace, connection: Any) -> int:
    from .keys import listed

    rows = await listed(connection)
    lines = [
        f"{row['id']}  {row['name']}  {','.join(row['scopes'])}  "
        + ("revoked" if row["revoked_at"] else f"until {row['expires_at'] or 'revoked'}")
        for row in rows
    ]
    _show(options, rows, "\n".join(lines) or "There are no keys.")
    return OK


async def _revoke_key(options: argparse.Namespace, connection: Any) -> int:
    from .keys import revoke

    changed, row = await revoke(connection, options.id)
    _show(options, {"changed": changed, **row}, f"{row['id']} ({row['name']}) is revoked since {row['revoked_at']}")
    return OK


# ---- options ----


def _parser() -> argparse.ArgumentParser:
    parser = _command_parser(argparse.ArgumentParser, prog="bitnet-cli", description=__doc__)
    groups = parser.add_subparsers(required=True, metavar="COMMAND")
    model = groups.add_parser("model", help="make, fetch, convert, look at and check models").add_subparsers(
        required=True, metavar="COMMAND"
    )
    kernels = groups.add_parser("kernels", help="check kernel variants").add_subparsers(
        required=True, metavar="COMMAND"
    )

    _add_synthetic(model)
    _add_fetch(model)
    _add_convert(model)
    _add_looks(model)
    _add_perplexity(model)

    command = _add(kernels, "verify", _verify, IMPOSSIBLE, "compare the variants with the NumPy forward pass")
    _add_kernels(command, required=True)
    command.add_argument("--model", type=Path, metavar="FILE", help="model to compare on (default: the synthetic one)")
    command.add_argument("--reference", type=Path, metavar="FILE", help="model that NumPy reads (default: the same)")
    command.add_argument(
        "--requires", nargs="*", metavar="FLAG", help="CPU features the variant needs (default: from manifest.json)"
    )
    _add_emulator(command)
    # One thread: the model is small, and threads that wait for one another crawl on a busy machine.
    _add_effort(command, 120, threads=1)

    _add_database(groups)

    command = _add(groups, "answer", _answer, IMPOSSIBLE, "put the known-answer test to a running slot")
    command.add_argument("--url", required=True, help="address of the slot or the edge, without a path")
    command.add_argument("--token-file", type=Path, required=True, metavar="FILE", help="file with the bearer token")
    command.add_argument("--expect", type=Path, required=True, metavar="FILE", help="model.json of the model")
    command.add_argument("--ca-file", type=Path, metavar="FILE", help="certificates to trust for an https address")
    command.add_argument("--deadline", type=_seconds, default=60, metavar="SECONDS", help="per prompt (default 60)")
    return parser


def _command_parser(make: Callable[..., argparse.ArgumentParser], **keywords: Any) -> argparse.ArgumentParser:
    return make(epilog=EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter, **keywords)


def _add(group: Any, name: str, run: Callable[..., int], failure: int, help_text: str) -> argparse.ArgumentParser:
    """A command; ``failure`` is the exit code of an error of the model or engine in it."""
    command = _command_parser(group.add_parser, name=name, help=help_text, description=help_text)
    command.add_argument("--json", action="store_true", help="one JSON document on stdout")
    command.set_defaults(run=run, failure=failure)
    return command


def _add_synthetic(model: Any) -> None:
    command = _add(model, "synthetic", _synthetic, IMPOSSIBLE, "make a small model of invented weights (3 MB)")
    command.add_argument("--output", type=Path, required=True, metavar="FILE")
    command.add_argument("--seed", type=int, default=1, help="another seed, other weights (default 1)")
    command.add_argument("--layers", type=_count, default=synthetic.LAYERS, help=f"default {synthetic.LAYERS}")
    command.add_argument("--type", choices=sorted(synthetic.TYPES), default="iq2_bn", help="i2_s is for trying convert")


def _add_fetch(model: Any) -> None:
    command = _add(model, "fetch", _fetch, IMPOSSIBLE, "download a model, resumed and checked")
    names = sorted(download.CATALOGUE)
    command.add_argument("--name", choices=names, help="a published model, in place of --url and --sha256")
    command.add_argument("--url", help="http or https address of the file")
    command.add_argument("--sha256", type=str.lower, help="what the file must be (64 hexadecimal digits)")
    command.add_argument("--mirror", metavar="PREFIX", help="take the file of the same name from below this address")
    command.add_argument("--output", type=Path, required=True, metavar="FILE")
    command.add_argument("--deadline", type=_seconds, default=7200, metavar="SECONDS", help="in all (default 7200)")
    command.add_argument("--retries", type=_count, default=8, help="attempts in a row without progress (default 8)")


def _add_convert(model: Any) -> None:
    command = _add(model, "convert", _convert, FAILED, "convert an I2_S model to IQ2_BN_R4 and compare the two")
    _add_kernels(command, required=True)
    command.add_argument("--input", type=Path, required=True, metavar="FILE")
    command.add_argument("--output", type=Path, required=True, metavar="FILE")
    command.add_argument("--name", help="name in model.json (default: the one in the file)")
    command.add_argument(
        "--ordering", choices=[convert.AUTO, *i2s.ORDERINGS], default=convert.AUTO,
        help="of I2_S in the input (default: the one that makes more sense of a text)",
    )  # fmt: skip
    command.add_argument("--no-known-answer", action="store_true", help="leave out the answers for the test at rollout")
    _add_effort(command, 1800)


def _add_looks(model: Any) -> None:
    command = _add(model, "inspect", _inspect, FAILED, "show what is in a GGUF file, servable or not")
    command.add_argument("file", type=Path, metavar="FILE")
    command.add_argument("--tensors", action="store_true", help="list the tensors as well")

    command = _add(model, "check", _check, FAILED, "refuse a model that the engine would answer wrongly with")
    command.add_argument("file", type=Path, metavar="FILE")
    command.add_argument("--record", action="store_true", help="write model.json beside it (with its sha256)")
    _add_kernels(command, required=False)
    _add_effort(command, 1800)


def _add_perplexity(model: Any) -> None:
    command = _add(
        model, "perplexity", _perplexity, IMPOSSIBLE, "compare an engine's perplexity of a held-out text with NumPy's"
    )
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--kernels", type=Path, metavar="DIR", help="start the engine of this output of kernel_build")
    source.add_argument("--url", help="ask a served slot or the edge at this address, without a path")
    source.add_argument("--record", action="store_true", help="compute the reference's side and keep it in model.json")
    command.add_argument("--variant", help="with --kernels: which (default: the first that runs here)")
    command.add_argument("--token-file", type=Path, metavar="FILE", help="with --url: file with the bearer token")
    command.add_argument("--ca-file", type=Path, metavar="FILE", help="certificates to trust for an https address")
    command.add_argument(
        "--positions", type=_count, default=perplexity.POSITIONS,
        help=f"to record, or of the recorded ones to ask an engine for (default {perplexity.POSITIONS})",
    )  # fmt: skip
    _add_emulator(command)
    command.add_argument("--model", type=Path, metavar="FILE", help="the model that the engine, or NumPy, reads")
    command.add_argument("--text", type=Path, required=True, metavar="FILE", help="the held-out text")
    command.add_argument("--expect", type=Path, metavar="FILE", help="model.json (default: the one beside --model)")
    command.add_argument(
        "--tolerance", type=_share, metavar="SHARE", help="largest relative difference (default: the record's, 0.01)"
    )
    command.add_argument("--threads", type=_count, default=1, help="of the engine (default 1)")
    command.add_argument("--deadline", type=_seconds, metavar="SECONDS", help="for all positions (default 600)")


def _add_database(groups: Any) -> None:
    database = groups.add_parser("database", help="the database's schema").add_subparsers(
        required=True, metavar="COMMAND"
    )
    command = _add(database, "migrate", _migrate, USAGE, "bring the schema to what this release wants")
    command.add_argument("--to", metavar="REVISION", help="default: as far as migrations only add")
    command.add_argument("--contract", action="store_true", help="also those that take away what older releases use")
    command.add_argument("--lose-data", action="store_true", help="go back with --to, and drop what was added since")
    _add_url(command)
    command = _add(database, "check", _check_database, USAGE, "whether the schema lets this release work")
    command.add_argument(
        "--release", type=_schemas, metavar="MINIMUM-MAXIMUM",
        help="another release, by its label io.bitnet.schemas",
    )  # fmt: skip
    _add_url(command)

    keys = groups.add_parser("keys", help="API keys in the database").add_subparsers(required=True, metavar="COMMAND")
    command = _add(keys, "create", _keys, USAGE, "make a key and print it, once")
    command.add_argument("name", help="whose it is: small letters, digits, . _ -")
    command.add_argument(
        "--scope", action="append", choices=sorted(SCOPES), required=True, help="what it is good for; may be repeated"
    )
    command.add_argument("--days", type=_days, help="how long it is good (default: until it is revoked)")
    command.add_argument(
        "--requests-per-minute", type=_rate, help="its rate limit (default: BITNET_REQUESTS_PER_MINUTE of the service)"
    )
    command.set_defaults(work=_create_key)
    _add_url(command)
    command = _add(keys, "list", _keys, USAGE, "show all keys, without their secrets")
    command.set_defaults(work=_list_keys)
    _add_url(command)
    command = _add(keys, "revoke", _keys, USAGE, "end a key, within 10 seconds")
    command.add_argument("id", help="its id, as 'keys list' shows it")
    command.set_defaults(work=_revoke_key)
    _add_url(command)


def _add_url(command: argparse.ArgumentParser) -> None:
    for option, variable, what in (
        ("--url-file", "BITNET_DATABASE_URL_FILE", "file with the database's URL"),
        ("--ca-file", "BITNET_DATABASE_CA_FILE", "the CA of its certificate: the connection is TLS then"),
    ):
        given = os.environ.get(variable, "").strip()
        command.add_argument(
            option, type=Path, metavar="FILE", default=Path(given) if given else None,
            help=f"{what} (default: {variable})",
        )  # fmt: skip


def _add_kernels(command: argparse.ArgumentParser, required: bool) -> None:
    what = "output directory of kernel_build" + ("" if required else "; with --record: compute known answers as well")
    command.add_argument("--kernels", type=Path, required=required, metavar="DIR", help=what)
    command.add_argument("--variant", help="one variant (default: all to verify, the first that runs to convert)")


def _add_emulator(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--emulator", type=shlex.split, default=[], metavar="COMMAND",
        help="run the engine under it, for example 'qemu-aarch64-static -cpu cortex-a76 -L /usr/aarch64-linux-gnu'",
    )  # fmt: skip


def _add_effort(command: argparse.ArgumentParser, deadline: int, threads: int = min(4, os.cpu_count() or 1)) -> None:
    command.add_argument("--threads", type=_count, default=threads, help=f"of the engine (default {threads})")
    command.add_argument(
        "--deadline", type=_seconds, default=deadline, metavar="SECONDS", help=f"per engine run (default {deadline})"
    )


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1024:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 1024")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _days(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 3650:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 3650 days")
    return value


def _rate(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 1000000 requests a minute")
    return value


def _schemas(text: str) -> tuple[str, str]:
    minimum, dash, maximum = text.partition("-")
    if not (dash and len(minimum) == len(maximum) == 4 and (minimum + maximum).isdecimal()):
        raise argparse.ArgumentTypeError(f"{text} is not of the form 0001-0003")
    return minimum, maximum


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= 7 * 86400:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 604800 seconds")
    return value


if __name__ == "__main__":
    sys.exit(main())
