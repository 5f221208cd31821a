"""``ipfs-accelerate``: one short function per command. What they do lives in the packages that they call."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import UnavailableError, UserError

app = typer.Typer(
    help="On which hardware, in which browser and at which precision should this model run, and how fast will it be? "
    "Measured on this machine, with every sample kept.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

StoreOption = Annotated[Path, typer.Option("--store", help="The DuckDB file that holds every sample.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output; progress goes to standard error.")]
DEFAULT_STORE = Path("results/ipfs-accelerate.duckdb")


def main() -> None:
    """Run the command line. A mistake of the user is one sentence and status 2; a defect keeps its traceback."""
    try:
        app()
    except (UserError, UnavailableError) as error:
        typer.echo(f"ipfs-accelerate: {error}", err=True)
        sys.exit(2)


@app.command()
def detect(
    platforms: Annotated[
        list[str], typer.Option("--platforms", help="Only these, comma-separated (all eight by default).")
    ] = [],  # noqa: B006
    as_json: JsonOption = False,
) -> None:
    """Show which platforms, devices and browsers this machine has, asked live, or why it has not."""
    from .console import detection

    detection.show(words(platforms), as_json=as_json)


@app.command()
def bench(
    models: Annotated[
        list[str],
        typer.Option(
            "--models", help="Classes, folders with a config.json, or hub ids: bert,vit,./my-model,organisation/name."
        ),
    ] = ["bert,vit,whisper,llama"],  # noqa: B006
    size: Annotated[
        list[str],
        typer.Option(
            "--size",
            help="Presets: tiny (for tests), small, base, ... 'models' lists them (the smallest published one by default).",
        ),
    ] = [],  # noqa: B006
    weights: Annotated[
        str,
        typer.Option(help="auto, synthetic (seeded random at the published shape) or trained. Part of a result's identity."),
    ] = "auto",
    platforms: Annotated[
        list[str], typer.Option("--platforms", help="cpu,cuda,rocm,mps,openvino,wasm,webnn,webgpu (all by default).")
    ] = [],  # noqa: B006
    browsers: Annotated[
        list[str], typer.Option("--browsers", help="chromium,firefox,... ('all' adds the headless shell everywhere).")
    ] = [],  # noqa: B006
    engines: Annotated[
        list[str], typer.Option("--engines", help="torch,onnxruntime,openvino,onnxruntime-web (all by default).")
    ] = [],  # noqa: B006
    batch_sizes: Annotated[list[str], typer.Option("--batch-sizes", help="For example 1,8.")] = ["1"],  # noqa: B006
    sequence_lengths: Annotated[
        list[str], typer.Option("--sequence-lengths", help="Tokens, for example 32,128 (each model's own by default).")
    ] = [],  # noqa: B006
    new_tokens: Annotated[
        int | None, typer.Option("--new-tokens", help="Tokens to generate per iteration, for models that do.")
    ] = None,
    precisions: Annotated[list[str], typer.Option("--precisions", help="float32,float16,bfloat16,int8,int4.")] = ["float32"],  # noqa: B006
    modes: Annotated[
        list[str], typer.Option("--modes", help="inference,training (training: forward, backward and AdamW; torch only).")
    ] = ["inference"],  # noqa: B006
    launches: Annotated[
        int | None,
        typer.Option(
            help="Fresh processes or browser profiles per cell: 5, or 4 if quick, the fewest that can be told apart at 95 %."
        ),
    ] = None,
    software_launches: Annotated[
        int | None,
        typer.Option(
            help="The same for WebGPU on a software adapter, which is slow and says nothing about a GPU: 2; 1 if quick."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads per engine (each engine's default otherwise).")] = None,
    seed: Annotated[int, typer.Option(help="Seeds the random order of launches.")] = 0,
    store: StoreOption = DEFAULT_STORE,
    report: Annotated[Path | None, typer.Option(help="Where the HTML report goes (beside the store by default).")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the last unfinished campaign of this same request.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what would run and how long it should take; run nothing.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer launches and shorter series: a first look, wider intervals.")
    ] = False,
    simulate: Annotated[
        bool,
        typer.Option(
            "--simulate",
            help="Neither browser nor accelerator: outputs computed on the CPU, times made up and marked as simulated.",
        ),
    ] = False,
    overlap_imports: Annotated[
        bool,
        typer.Option(
            "--overlap-imports",
            help="Let the next launch's process import torch while one is measured: faster, for machines with idle cores. "
            "Such launches are marked, and their start is not timed.",
        ),
    ] = False,
    phase_limit_s: Annotated[
        float | None, typer.Option("--phase-limit-s", help="Seconds after which any phase of a launch counts as hung.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(help="Models prepared at a time (by default half as many as there are cores, and as the memory lasts)."),
    ] = None,
    prepare_only: Annotated[
        bool,
        typer.Option(
            "--prepare-only", help="Prepare the models and launch nothing: a later run of the same then starts at once."
        ),
    ] = False,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Time for all of it, preparation included: no launch begins that would end later; --resume goes on another time."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure models on every platform of this machine and write the report.

    Every list option takes several values, comma-separated or repeated; all combinations run. Launches are interleaved in a
    seeded random order, and each is a fresh process or browser profile. Ctrl-C keeps what is done; --resume goes on.

    Examples:

      ipfs-accelerate bench --quick

      ipfs-accelerate bench --models bert --platforms cpu,openvino,webnn --batch-sizes 1,8

      ipfs-accelerate bench --models ./my-model --browsers firefox --plan
    """
    from .campaign.plan import Request
    from .console import bench as console

    request = Request(
        models=words(models),
        sizes=words(size),
        weights=weights,
        platforms=words(platforms),
        browsers=words(browsers),
        engines=words(engines),
        batch_sizes=numbers(batch_sizes, "--batch-sizes"),
        sequence_lengths=numbers(sequence_lengths, "--sequence-lengths"),
        new_tokens=new_tokens,
        precisions=words(precisions),
        modes=words(modes),
        launches=launches if launches is not None else 4 if quick else 5,
        software_launches=software_launches if software_launches is not None else 1 if quick else 2,
        seed=seed,
        threads=threads,
        quick=quick,
        overlap_imports=overlap_imports,
        simulate=simulate,
    )
    if prepare_only and minutes is not None:
        raise UserError("--prepare-only launches nothing, and preparation has no limit of time: leave --minutes out.")
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs {jobs} makes no sense: give 1 or more.")
    if plan:
        console.show_plan(request, store, as_json=as_json)
    elif prepare_only:
        console.prepare_only(request, jobs=jobs, as_json=as_json)
    else:
        console.bench(
            request,
            store,
            report or store.with_suffix(".html"),
            resume=resume,
            phase_limit_s=phase_limit_s,
            as_json=as_json,
            jobs=jobs,
            minutes=minutes,
        )


@app.command()
def models(as_json: JsonOption = False) -> None:
    """List the model classes and their sizes, with the published model whose shape each has."""
    from .console import catalogue

    catalogue.show(as_json=as_json)


@app.command()
def report(
    store: StoreOption = DEFAULT_STORE,
    output: Annotated[Path | None, typer.Option("--output", help="The HTML file (beside the store by default).")] = None,
    campaign: Annotated[str | None, typer.Option(help="A campaign's id (the latest by default; 'all' for every one).")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Write the dashboard of the whole store instead, as one file that works offline.")
    ] = False,
) -> None:
    """Write the report of a store again, and print its summary."""
    if full:
        from .console import dashboard as console

        return console.write_file(store, output, campaign)
    from .report.data import from_store
    from .report.html import write_report
    from .report.summary import print_summary

    destination = output or store.with_suffix(".html")
    if destination.resolve() == store.resolve():
        raise UserError(f"The report would overwrite the store {store}: name another file with --output.")
    data = from_store(store, campaign)
    print_summary(data)
    typer.echo(f"Report: {write_report(data, destination).resolve()}")


@app.command()
def dashboard(
    store: StoreOption = DEFAULT_STORE,
    port: Annotated[int, typer.Option(help="Of this machine's loopback address; 0 for any free one.")] = 8765,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in the default browser.")] = False,
    token: Annotated[
        bool,
        typer.Option("--token/--no-token", help="Answer only with the token of the printed address, or to everybody here."),
    ] = True,
) -> None:
    """Look at the whole store in a browser: filters, figures, every launch, SQL. A running campaign goes on and appears in it."""
    from .console import dashboard as console

    console.serve(store, port, open_browser=open_browser, token=token)


@app.command()
def query(
    sql: Annotated[str, typer.Argument(help="For example: SELECT label, median_ms FROM spec_summary ORDER BY median_ms")],
    store: StoreOption = DEFAULT_STORE,
    limit: Annotated[int, typer.Option(help="Rows to print at most.")] = 1000,
    as_json: JsonOption = False,
) -> None:
    """Ask the store in SQL, read-only. Views: launch_summary (a row per launch) and spec_summary (a row per cell)."""
    from .console import table
    from .store.queries import run_sql

    columns, rows = run_sql(store, sql, limit)
    table.show(columns, rows, as_json=as_json)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(help="A cell of the store: model and target, 'bert:cpu/onnxruntime', or a spec's hash.")],
    b: Annotated[str, typer.Argument(help="The cell to compare it with; left out with --by.")] = "",
    by: Annotated[
        str | None,
        typer.Option(
            help="Instead of B: compare all cells with the words of A by browser, precision, engine, target, version, ..."
        ),
    ] = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Say whether A is faster than B, equal, or not decided, with the ratio of medians and its interval."""
    from .console import comparison, families

    if by is not None and b:
        raise UserError("Give a second cell or --by, not both.")
    if by is not None:
        families.show(store, a, by, as_json=as_json)
    elif b:
        comparison.show(store, a, b, as_json=as_json)
    else:
        raise UserError("Give a second cell to compare with, or --by with what to compare by.")


@app.command()
def history(
    cell: Annotated[str, typer.Argument(help="A cell of the store, as for 'compare'.")],
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Show one cell over its campaigns, with every step of its level, and whether its launches call it slower."""
    from .console import families

    families.show_history(store, cell, as_json=as_json)


@app.command()
def calibrate(
    platforms: Annotated[list[str], typer.Option("--platforms", help="Only these, comma-separated (all by default).")] = [],  # noqa: B006
    browsers: Annotated[list[str], typer.Option("--browsers", help="Only these (all that are found by default).")] = [],  # noqa: B006
    engines: Annotated[list[str], typer.Option("--engines", help="Only these (all that are installed by default).")] = [],  # noqa: B006
    threads: Annotated[int | None, typer.Option(help="CPU threads per engine (each engine's default otherwise).")] = None,
    store: StoreOption = DEFAULT_STORE,
    as_json: JsonOption = False,
) -> None:
    """Measure what each device can do at most, in at most a minute each: for 'predict', where no model was measured yet."""
    from .console import calibration

    calibration.run(store, words(platforms), words(browsers), words(engines), threads, as_json=as_json)


@app.command()
def predict(
    model: Annotated[
        str, typer.Argument(help="A name (bert-base-uncased, llama-7b), a config.json or its folder, or an ONNX file.")
    ] = "",
    platform: Annotated[str, typer.Option(help="cpu, cuda, openvino, webgpu, ... (every known device by default).")] = "",
    engine: Annotated[str | None, typer.Option(help="torch, onnxruntime, openvino, onnxruntime-web.")] = None,
    device: Annotated[str, typer.Option(help="As in a target: default, '1 threads', ...")] = "default",
    browser: Annotated[str | None, typer.Option(help="chromium, firefox, ...")] = None,
    machine: Annotated[
        str | None,
        typer.Option(help="Words of a device's name, measured or of the datasheets: H200, 'NVIDIA A100'; or a machine's hash."),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Items at once.")] = 1,
    sequence_length: Annotated[int | None, typer.Option(help="Tokens (the model's own by default).")] = None,
    new_tokens: Annotated[int | None, typer.Option(help="Tokens to generate.")] = None,
    precision: Annotated[str, typer.Option(help="float32, float16, bfloat16, int8, int4.")] = "float32",
    mode: Annotated[str, typer.Option(help="inference or training.")] = "inference",
    stores: Annotated[list[Path], typer.Option("--store", help="Learn from this store too; repeat it for several.")] = [],  # noqa: B006
    reference: Annotated[bool, typer.Option(help="Learn from the measurements that come with the program.")] = True,
    train: Annotated[bool, typer.Option("--train", help="Learn again from the stores, and print how wrong it is.")] = False,
    save: Annotated[Path | None, typer.Option(help="Store the predictions, marked as predicted, in this store.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Predict latency, throughput and memory where nothing was measured, with 90 % intervals and how each is known."""
    from .console import prediction

    if train:
        prediction.train(stores, reference, as_json=as_json)
        return
    asked = prediction.Asked(
        model, platform, engine, device, browser, machine, batch_size, sequence_length, new_tokens, precision, mode
    )
    prediction.show(asked, stores, reference, save, as_json=as_json)


@app.command()
def matrix(
    stores: Annotated[
        list[Path],
        typer.Option("--store", help="A store, or what 'export' wrote; repeat it for several (the usual store by default)."),
    ] = [],  # noqa: B006
    reference: Annotated[
        str, typer.Option(help="with, without or only: the measurements of other machines that come with the program.")
    ] = "with",
    format_: Annotated[str, typer.Option("--format", help="table, markdown, json or html.")] = "table",
    output: Annotated[Path | None, typer.Option("--output", help="Write to this file.")] = None,
    ask_browsers: Annotated[
        bool, typer.Option("--ask-browsers", help="Start the browsers of this machine and ask what they offer.")
    ] = False,
) -> None:
    """Rate every model class on every platform and browser, by measured launches and a rule that is printed with it."""
    from .console import matrix as console

    console.show(stores, DEFAULT_STORE, reference, format_, output, ask_browsers=ask_browsers)


@app.command()
def export(
    destination: Annotated[Path, typer.Argument(help="A folder (parquet, csv: one file per table) or a file (json).")],
    store: StoreOption = DEFAULT_STORE,
    format_: Annotated[str, typer.Option("--format", help="parquet, csv or json.")] = "parquet",
    campaign: Annotated[str | None, typer.Option(help="Only this campaign.")] = None,
) -> None:
    """Write the store's rows, samples and provenance included, where other tools can read them."""
    from .store.exchange import export as write

    typer.echo(f"Exported to {write(store, destination, format_, campaign)}")


@app.command(name="import")
def import_(
    source: Annotated[Path, typer.Argument(help="What 'export' wrote.")],
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Add exported rows to a store. Rows that it already has are left alone."""
    from .store.exchange import import_ as read

    typer.echo(f"Imported into {store}: {read(store, source)}")


@app.command()
def run(
    model: Annotated[
        str, typer.Argument(help="A class, a published name, a folder or a hub id: bert-base-uncased, ./my-model.")
    ],
    text: Annotated[list[str], typer.Option("--text", help="A text; repeat it for a batch.")] = [],  # noqa: B006
    image: Annotated[list[str], typer.Option("--image", help="An image file.")] = [],  # noqa: B006
    audio: Annotated[list[str], typer.Option("--audio", help="A recording (wav).")] = [],  # noqa: B006
    video: Annotated[list[str], typer.Option("--video", help="A video: a folder of its frames as image files.")] = [],  # noqa: B006
    browser: Annotated[
        str, typer.Option(help="A key of 'browsers', a path, auto, or attach: one that you open by a printed address.")
    ] = "auto",
    platform: Annotated[str, typer.Option(help="webgpu, webnn, wasm or auto.")] = "auto",
    precision: Annotated[str, typer.Option(help="Bits of the weights: 4, 8, 16, 32, or auto.")] = "auto",
    size: Annotated[str | None, typer.Option(help="A preset of a model class.")] = None,
    weights: Annotated[str, typer.Option(help="auto, synthetic or trained.")] = "auto",
    max_new_tokens: Annotated[int | None, typer.Option("--max-new-tokens", help="For models that generate.")] = None,
    recovery: Annotated[str, typer.Option(help="When the browser fails: auto, fallback, retry or abort.")] = "auto",
    listen: Annotated[
        str, typer.Option(help="With --browser attach: the address that others may open it at (0.0.0.0: every one).")
    ] = "127.0.0.1",
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the browser's profile: the next run sends it nothing of this model again.")
    ] = False,
    simulate: Annotated[bool, typer.Option("--simulate", help="No browser: computed here, marked as simulated.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a model in a browser on what you give it. Tokens are printed as they come.

    Examples:

      ipfs-accelerate run all-MiniLM-L6-v2 --text "A sentence to embed"

      ipfs-accelerate run llama --size tiny --text "Once" --platform wasm
    """
    from .console import run as console

    inputs = {"text": text, "image": image, "audio": audio, "video": video}
    configuration = {"size": size, "weights": weights, "keep_profile": keep or None}
    console.run(
        model, inputs, as_json=as_json, max_new_tokens=max_new_tokens, simulate=simulate, listen=listen, configuration=configuration,
        browser=browser, platform=platform, precision=precision, recovery=recovery,
    )  # fmt: skip


@app.command()
def browsers(
    install: Annotated[
        bool, typer.Option("--install", help="Install what is missing, or print the command that does.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the browsers found here with their versions, or why not; --install gets the missing ones."""
    from .console import detection
    from .web.install import install as install_missing

    if install:
        install_missing()
    detection.show_browsers(as_json=as_json)


@app.command()
def quantize(
    model: Annotated[
        str, typer.Argument(help="A class (llama), a folder, or a hub id; with --check a folder that 'quantize' made.")
    ],
    bits: Annotated[int, typer.Option(help="Bits of a weight: 2, 3, 4 or 8; with a budget, of the narrowest ones.")] = 4,
    group_size: Annotated[int, typer.Option("--group-size", help="Weights that share a scale and a zero: 32 or 64.")] = 64,
    solver: Annotated[
        str | None,
        typer.Option(help="rtn (search), hqq (half-quadratic) or gptq (needs --text). rtn by default, gptq with a text."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Bits a weight on average, spent where an error costs most; 'default': 2.24, 3.36, 4.48 at 2, 3, 4 bits."
        ),
    ] = None,
    text: Annotated[Path | None, typer.Option(help="A text file like what the model will read, to calibrate on.")] = None,
    evaluate: Annotated[Path | None, typer.Option(help="A text file to measure the perplexity on, before and after.")] = None,
    size: Annotated[str | None, typer.Option(help="A preset of the class: 'models' lists them.")] = None,
    weights: Annotated[str, typer.Option(help="auto, synthetic or trained.")] = "auto",
    output: Annotated[
        Path | None, typer.Option("--output", help="The folder to make; a run that was stopped goes on in it.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda (cuda where there is one by default).")] = None,
    store: Annotated[Path | None, typer.Option(help="A store that keeps the perplexities, for the dashboard.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Only read every shard of the folder MODEL and check it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make low-bit weights of a llama, qwen2 or mistral decoder: shards with exact bytes, resumable, and what they lose.

    Examples:

      ipfs-accelerate quantize ./my-model --bits 4 --output ./my-model-4-bit

      ipfs-accelerate quantize ./my-model --bits 3 --budget default --text sample.txt --evaluate held-out.txt --output ./my-model-3-bit

      ipfs-accelerate quantize llama --size 7b --weights synthetic --bits 2 --output ./llama-7b-2-bit
    """
    from .console import quantize as console

    if check:
        console.check(Path(model), as_json=as_json)
        return
    if output is None:
        raise UserError("Where to? Name a folder with --output.")
    options = console.Options(size, weights, bits, group_size, solver, budget, text, evaluate, device, store)
    console.quantize(model, options, output, as_json=as_json)


@app.command()
def recommend(
    model: Annotated[str, typer.Argument(help="A model's name (llama-7b), class, folder, config.json or ONNX file.")],
    mode: Annotated[str, typer.Option(help="inference or training.")] = "inference",
    objective: Annotated[str, typer.Option(help="latency, throughput, memory, energy or cost.")] = "latency",
    batch_size: Annotated[int, typer.Option("--batch-size", help="Items at once; in training, of each device in a step.")] = 1,
    sequence_length: Annotated[
        int | None, typer.Option("--sequence-length", help="Tokens (the model's own by default).")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32,float16,bfloat16,int8 or int4 (16 bits and more are compared by default).")
    ] = None,
    gpu_count: Annotated[int, typer.Option("--gpu-count", help="GPUs that share a training run.")] = 1,
    max_memory_gb: Annotated[float | None, typer.Option("--max-memory-gb", help="Limit of each device, 10^9 bytes.")] = None,
    latency_limit_ms: Annotated[float | None, typer.Option("--latency-limit-ms", help="A limit, under any objective.")] = None,
    hardware: Annotated[
        list[str], typer.Option("--hardware", help="Only these: platforms, browsers or devices (cpu,firefox,h200).")
    ] = [],  # noqa: B006
    store: Annotated[
        Path | None, typer.Option("--store", help="A store to learn from beside the shipped measurements.")
    ] = None,
    prices: Annotated[
        Path | None, typer.Option(help="Your price table, a CSV with date and source (or those of --store).")
    ] = None,
    configuration: Annotated[
        str | None, typer.Option(help="Print only this configuration of a training: torchrun, deepspeed or accelerate.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say where a model should run, or how its training should be spread, with the reasons and what is not known.

    Examples:

      ipfs-accelerate recommend llama-7b

      ipfs-accelerate recommend t5-base --mode training --gpu-count 4 --max-memory-gb 40
    """
    from .console import recommendation

    options = {
        "mode": mode,
        "objective": objective,
        "batch_size": batch_size,
        "sequence_length": sequence_length,
        "precision": precision,
        "gpu_count": gpu_count,
        "max_memory_gb": max_memory_gb,
        "latency_slo_ms": latency_limit_ms,
        "available_hardware": words(hardware) or None,
        "store": store,
        "prices": prices,
    }
    recommendation.show(model, options, configuration, as_json=as_json)


@app.command()
def collectives(
    processes: Annotated[int, typer.Option(help="Training processes that exchange data.")] = 2,
    backend: Annotated[str, typer.Option(help="gloo (CPU) or nccl (NVIDIA GPUs).")] = "gloo",
    as_json: JsonOption = False,
) -> None:
    """Measure what exchanging gradients costs on this machine, and keep it for 'recommend --mode training'."""
    from .console import recommendation

    recommendation.probe_collectives(processes, backend, as_json=as_json)


prices_app = typer.Typer(help="What your hardware costs, kept in the store for 'recommend'.", no_args_is_help=True)
app.add_typer(prices_app, name="prices")


@prices_app.command("import")
def prices_import(
    file: Annotated[Path, typer.Argument(help="A CSV with the columns hardware, price_per_hour, currency, date and source.")],
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Keep your own prices in the store; a newer price of the same hardware and day replaces the one that is there."""
    from .console import prices

    prices.add(file, store)


@prices_app.command("list")
def prices_list(store: StoreOption = DEFAULT_STORE, as_json: JsonOption = False) -> None:
    """Show each price that is kept, with its date and source."""
    from .console import prices

    prices.show(store, as_json=as_json)


cache_app = typer.Typer(help="Browser profiles that are kept between starts.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")


@cache_app.command("list")
def cache_list(as_json: JsonOption = False) -> None:
    """Show each kept profile, its size and when it was last used."""
    from .console import kept

    kept.show(as_json=as_json)


@cache_app.command("clear")
def cache_clear(
    name: Annotated[str | None, typer.Argument(help="One of 'cache list'; all that are not in use by default.")] = None,
) -> None:
    """Remove a kept profile, or all of them."""
    from .console import kept

    kept.clear(name)


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="A folder that 'quantize' made, or a class, a folder, a hub id: quantised now.")],
    bits: Annotated[
        int | None, typer.Option(help="Bits of a weight for a model that is quantised now: 2, 3, 4 (default) or 8.")
    ] = None,
    group_size: Annotated[int, typer.Option("--group-size", help="Weights that share a scale and a zero: 32 or 64.")] = 64,
    key_bits: Annotated[int, typer.Option("--key-bits", help="Bits of the cache's keys: 2, 3, 4, 8, 16 or 32.")] = 16,
    value_bits: Annotated[int, typer.Option("--value-bits", help="Bits of the cache's values: 2, 3, 4, 8, 16 or 32.")] = 16,
    context: Annotated[
        int | None, typer.Option(help="Tokens of prompt and answer together (the model's, at most 4096).")
    ] = None,
    batch: Annotated[int, typer.Option(help="Answers at a time, 1 to 8, each with a cache of the whole context.")] = 1,
    browser: Annotated[str, typer.Option(help="A key of 'browsers', a path, or auto.")] = "auto",
    adapter: Annotated[str, typer.Option(help="auto, or software: no GPU.")] = "auto",
    host: Annotated[str, typer.Option(help="Another address than loopback needs a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    token: Annotated[
        str | None,
        typer.Option(help="What clients give as their API key; better in the variable IPFS_ACCELERATE_SERVE_TOKEN."),
    ] = None,
    size: Annotated[str | None, typer.Option(help="A preset of the class: 'models' lists them.")] = None,
    weights: Annotated[str, typer.Option(help="auto, synthetic or trained.")] = "auto",
    embeddings: Annotated[str, typer.Option(help="The model for embeddings, on the CPU; 'none' for none.")] = "bert",
) -> None:
    """Serve a language model that runs in a browser: OpenAI's HTTP API, and a WebSocket.

    Examples:

      ipfs-accelerate serve ./my-model-4-bit

      ipfs-accelerate serve llama --size tiny --weights synthetic --bits 3 --port 0
    """
    from .console import serve as console
    from .serve.model import Options

    options = Options(
        bits=bits,
        group_size=group_size,
        key_bits=key_bits,
        value_bits=value_bits,
        context=context,
        batch=batch,
        browser=browser,
        adapter=adapter,
        size=size,
        weights=weights,
        embeddings=None if embeddings == "none" else embeddings,
    )
    console.serve(model, options, host, port, token)


def words(values: list[str]) -> tuple[str, ...]:
    """Values of a list option, given repeated, comma-separated or both."""
    return tuple(word.strip() for value in values for word in value.split(",") if word.strip())


def numbers(values: list[str], option: str) -> tuple[int, ...]:
    """As ``words``, whole numbers."""
    try:
        return tuple(int(word) for word in words(values))
    except ValueError as error:
        raise UserError(f"{option} takes whole numbers, comma-separated: {error}.") from error


def print_json(value: Any) -> None:
    """JSON on standard output, for programs."""
    typer.echo(json.dumps(value, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
