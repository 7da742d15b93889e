"""`elastune prices`, `elastune ledger`: what machines cost, where a run's money went. Imports typer; the rest when needed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elastune.experiments.cli.options import AsJson, print_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.sim.model.price_series import Price
    from elastune.traces import Offer

app = typer.Typer(help="What machines cost: the shipped catalogue, or one's own.", no_args_is_help=True)


def _complete_machine(incomplete: str) -> list[str]:
    """Machines of the shipped catalogue whose names begin so."""
    from elastune.traces import instance_type_names

    return [name for name in instance_type_names() if name.startswith(incomplete)]


Catalogue = Annotated[
    Path | None, typer.Option("--prices", metavar="FILE", help="A catalogue of one's own, instead of the shipped one.")
]
Region = Annotated[str | None, typer.Option(help="Only this region.")]


@app.command("list")
def list_prices(
    provider: Annotated[str | None, typer.Option(help="Only this provider, such as aws.")] = None,
    gpu: Annotated[str | None, typer.Option(help="Only accelerators with this in their name, such as A100.")] = None,
    market: Annotated[str | None, typer.Option(help="Only machines on this market: on-demand or spot.")] = None,
    region: Region = None,
    prices: Catalogue = None,
    as_json: AsJson = False,
) -> None:
    """The machines of the catalogue, with on-demand and typical spot prices."""
    from elastune.sim.model.errors import InputError
    from elastune.sim.model.prices import ON_DEMAND, SPOT

    if market not in (None, ON_DEMAND, SPOT):
        raise InputError(f"--market is {market!r}, but must be {ON_DEMAND} or {SPOT}")
    offers = _offers(prices)
    wanted = {"provider": provider, "region": region}
    for what, name in wanted.items():
        _require_known(what, name, {getattr(offer, what) for offer in offers})
    found = [
        offer
        for offer in offers
        if all(name in (None, getattr(offer, what)) for what, name in wanted.items())
        and (gpu is None or gpu.casefold() in offer.gpu.casefold())
        and (market is None or market in offer.instance_type.usd_per_hour)
    ]
    if not found:
        known = ", ".join(sorted({offer.gpu for offer in offers if offer.gpu}))
        raise InputError(f"no machine of the catalogue is all of that; its accelerators: {known}")
    if as_json:
        print_json([_told(offer) for offer in found])
        return
    from elastune.experiments.cli.tables import print_prices

    print_prices(found)


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(help="As the provider calls it.", autocompletion=_complete_machine, show_default=False)
    ],
    region: Region = None,
    prices: Catalogue = None,
    as_json: AsJson = False,
) -> None:
    """One machine: its prices, since when, and who says so."""
    from elastune.traces import offer_named

    offer = offer_named(name, _offers(prices), region, where=f"{prices}: " if prices else "")
    if as_json:
        print_json(_told(offer))
        return
    from elastune.experiments.cli.tables import print_offer

    print_offer(offer)


@app.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="A CSV file of prices, ours or a foreign one.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="The catalogue to write.", show_default="results/prices/<name of FILE>"),
    ] = None,
    date: Annotated[str, typer.Option(help="Of the prices, where the file has none.")] = "",
    source: Annotated[str, typer.Option(help="Of the prices, where the file has none.")] = "",
    as_json: AsJson = False,
) -> None:
    """Check a table of prices and write it as a catalogue that `cloud.prices` of a run spec takes."""
    from elastune.traces.importers.price_tables import import_prices, write_prices

    offers = import_prices(file, date=date, source=source or file.name)
    out = out or Path("results/prices") / file.name
    write_prices(out, offers)
    if as_json:
        print_json({"prices": str(out), "machines": [_told(offer) for offer in offers]})
        return
    regions = {offer.region for offer in offers if offer.region}
    where = f" in {len(regions)} region{'s' if len(regions) > 1 else ''}" if regions else ""
    typer.echo(f"{len({offer.name for offer in offers})} machines{where} written; use them with cloud.prices: {out}")


def ledger(
    journal: Annotated[Path, typer.Argument(help="The journal of a run.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Where the dollars and GPU-hours of a recorded run went."""
    from elastune.experiments.runs.simulate import ledger_of

    found = ledger_of(journal)
    if as_json:
        print_json({"journal": str(journal), "ledger_usd": found.usd(), "ledger_gpu_s": found.gpu_s()})
        return
    from elastune.experiments.cli.tables import print_ledger

    print_ledger(found.usd(), found.gpu_s())


def _offers(prices: Path | None) -> Sequence[Offer]:
    from elastune.traces import load_offers, shipped_offers

    return shipped_offers() if prices is None else load_offers(prices)


def _require_known(what: str, name: str | None, known: set[str]) -> None:
    from elastune.sim.model.errors import unknown

    if name is not None and name not in known:
        raise unknown(what, name, known - {""})


def _told(offer: Offer) -> dict[str, object]:
    kind = offer.instance_type
    return {
        "name": kind.name,
        "provider": offer.provider,
        "gpu": offer.gpu,
        "gpus_per_instance": kind.gpus_per_instance,
        "region": offer.region,
        "usd_per_hour": {market: _plain(price) for market, price in kind.usd_per_hour.items()},
        "date": offer.date,
        "source": offer.source,
    }


def _plain(price: Price) -> object:
    """A number, or pairs [from which second, USD per hour]."""
    from elastune.sim.model.price_series import PriceSeries

    if not isinstance(price, PriceSeries):
        return price
    return [list(pair) for pair in zip(price.start_s, price.usd_per_hour, strict=True)]
