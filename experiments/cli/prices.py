"""`elastune prices`: what machines cost."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elastune.experiments.cli.completion import complete_machine
from elastune.experiments.cli.numbers import count_option
from elastune.experiments.cli.options import AsJson, out_option, print_json
from elastune.experiments.cli.table_views import with_view
from elastune.experiments.cli.tables import NONE, Table, key, number, numbers, print_pairs, say, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from elastune.sim.model.price_series import Price
    from elastune.traces import Offer

app = typer.Typer(help="What machines cost: the shipped catalogue, or one's own.", no_args_is_help=True)


Catalogue = Annotated[
    Path | None, typer.Option("--prices", metavar="FILE", help="A catalogue of one's own, instead of the shipped one.")
]
Region = Annotated[str | None, typer.Option(help="Only this region.")]
_ELSE = (
    "give the machine in the spec, as in cloud.instance_type={name: mine, gpus_per_instance: 8, price_usd_per_hour: 12.5},"
    " or a table of prices with elastune prices import FILE.csv"
)


@app.command("list")
@with_view
def list_prices(
    provider: Annotated[str | None, typer.Option(help="Only this provider, such as aws.")] = None,
    gpu: Annotated[str | None, typer.Option(help="Only accelerators with this in their name, such as A100.")] = None,
    gpus: Annotated[int | None, count_option(help="Only machines with so many.", show_default=False)] = None,
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
        and gpus in (None, offer.instance_type.gpus_per_instance)
        and (market is None or market in offer.instance_type.usd_per_hour)
    ]
    if not found:
        known = ", ".join(sorted({offer.gpu for offer in offers if offer.gpu}))
        raise InputError(f"no machine of the catalogue is all of that; its accelerators: {known}; {_ELSE}")
    if as_json:
        print_json([_told(offer) for offer in found])
        return
    _table(found).print()


@app.command()
def show(
    name: Annotated[
        str, typer.Argument(help="As the provider calls it.", autocompletion=complete_machine, show_default=False)
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
    _print_offer(offer)


@app.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="A CSV file of prices, ours or a foreign one.", show_default=False)],
    out: Annotated[Path | None, out_option("The catalogue to write.", "results/prices/<name of FILE>")] = None,
    date: Annotated[str, typer.Option(help="Of the prices, where the file has none.")] = "",
    source: Annotated[str, typer.Option(help="Of the prices, where the file has none.")] = "",
    as_json: AsJson = False,
) -> None:
    """Check a table of prices and write it as a catalogue that `cloud.prices` of a run spec takes."""
    from elastune.experiments.files import check_outputs, write_whole
    from elastune.traces.importers.price_tables import import_prices, write_prices

    out = out or Path("results/prices") / file.name
    check_outputs(out, reads=[file])
    imported = import_prices(file, date=date, source=source or file.name)
    offers = imported.offers
    write_whole(out, lambda path: write_prices(path, offers))
    if as_json:
        left_out = {reason: list(names) for reason, names in imported.left_out.items()}
        print_json({"prices": str(out), "machines": [_told(offer) for offer in offers], "left_out": left_out})
        return
    for note in imported.notes():
        say(note)
    regions = {offer.region for offer in offers if offer.region}
    where = f" in {len(regions)} region{'s' if len(regions) > 1 else ''}" if regions else ""
    machines = len({offer.name for offer in offers})
    say(f"{machines} machine{'s' if machines > 1 else ''}{where} written; use them with cloud.prices: {out}")


def _offers(prices: Path | None) -> Sequence[Offer]:
    from elastune.traces import load_offers, shipped_offers

    return shipped_offers() if prices is None else load_offers(prices)


def _require_known(what: str, name: str | None, known: set[str]) -> None:
    from elastune.sim.model.errors import unknown

    if name is not None and name not in known:
        raise unknown(what, name, known - {""}, _ELSE)


def _told(offer: Offer) -> dict[str, object]:
    kind = offer.instance_type
    return {
        "name": kind.name,
        "provider": offer.provider,
        "gpu": offer.gpu,
        "gpu_memory_gb": offer.gpu_memory_gb,
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


def _table(offers: Sequence[Offer]) -> Table:
    """One line per machine and region."""
    from elastune.sim.model.price_series import price_at
    from elastune.sim.model.prices import ON_DEMAND, SPOT

    spot = ("on demand, USD/h", "spot", "spot over on demand")
    table = Table("", [*key("machine"), *text("GPUs", "provider", "region"), *numbers(*spot), *text("date")])
    for offer in offers:
        prices = offer.instance_type.usd_per_hour
        on_demand = price_at(prices[ON_DEMAND], 0) or math.nan
        ratio = NONE if SPOT not in prices else number(price_at(prices[SPOT], 0) / on_demand, 2)
        shown = (_price(prices.get(market)) for market in (ON_DEMAND, SPOT))
        table.add(offer.name, _gpus(offer), offer.provider, offer.region, *shown, ratio, offer.date)
    return table


def _print_offer(offer: Offer) -> None:
    """Everything a catalogue says of one machine in one region."""
    from elastune.sim.model.price_series import price_at
    from elastune.sim.model.prices import ON_DEMAND

    kind = offer.instance_type
    rows = {
        "provider": offer.provider,
        "GPUs": _gpus(offer),
        "region": offer.region,
        **{market: f"{_price(price)} USD/h" for market, price in kind.usd_per_hour.items()},
        "on demand, per GPU": f"{number(price_at(kind.usd_per_hour[ON_DEMAND], 0) / kind.gpus_per_instance)} USD/h",
        "date": offer.date,
        "source": offer.source,
    }
    print_pairs(kind.name, {what: value or NONE for what, value in rows.items()})


def _gpus(offer: Offer) -> str:
    memory_gb = offer.gpu_memory_gb
    memory = "" if memory_gb is None or offer.gpu.endswith("GB") else f"-{memory_gb}GB"
    return f"{offer.instance_type.gpus_per_instance} x {offer.gpu or 'GPU'}{memory}"


def _price(price: Price | None) -> str:
    """A constant price, or a series as `3 (0 s), 2.5 (3600 s)`."""
    if price is None:
        return NONE
    told = _plain(price)
    if not isinstance(told, list):
        return f"{told:g}"
    return ", ".join(f"{usd_per_hour:g} ({start_s:g} s)" for start_s, usd_per_hour in told)
