"""Price catalogues with regions and series, and foreign tables that become one."""

from __future__ import annotations

import pytest

from elastune import traces
from elastune.sim.model.errors import InputError, InvalidTraceError
from elastune.sim.model.price_series import PriceSeries
from elastune.traces.importers.price_tables import import_prices, write_prices

FOREIGN = "cloud,instance_type,accelerator,n_gpus,ondemand_usd_per_h,region,zone,spot_usd_per_h"


@pytest.fixture
def write(tmp_path):
    def put(text, name="prices.csv"):
        path = tmp_path / name
        path.write_text(text.strip().replace(" ", "") + "\n")
        return path

    return put


REGIONS = """
name,gpus_per_instance,on_demand_usd_per_hour,spot_usd_per_hour,region
box,4,12,3,here
box,4,14,,there
lone,1,3,,here
"""


def test_a_machine_with_several_regions_is_meant_by_its_region(write):
    offers = traces.load_offers(write(REGIONS))
    assert traces.offer_named("box", offers, "there").instance_type.usd_per_hour == {"on-demand": 14.0}
    assert traces.offer_named("lone", offers).region == "here"
    with pytest.raises(InputError, match=r"box has prices in several regions: set cloud.region to one of here, there"):
        traces.offer_named("box", offers)


def test_a_missing_region_is_told_with_what_would_do(write):
    path = write(REGIONS)
    with pytest.raises(
        InputError,
        match=r"prices.csv: lone has no price in region 'there', only in here: set cloud.region to one that it has, or add"
        r" a row for it with region there and on_demand_usd_per_hour",
    ):
        traces.offer_named("lone", traces.load_offers(path), "there", where=f"{path}: ")


SERIES = """
name,gpus_per_instance,start_s,on_demand_usd_per_hour,spot_usd_per_hour
box,4,0,12,3
lone,1,0,3,
box,4,1800,12,9
box,4,3600,12,1
"""


def test_rows_with_a_time_are_a_series(write):
    box, lone = traces.load_offers(write(SERIES))
    assert box.instance_type.usd_per_hour["spot"] == PriceSeries((0.0, 1800.0, 3600.0), (3.0, 9.0, 1.0))
    assert lone.instance_type.usd_per_hour == {"on-demand": 3.0}


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            "box,4,3600,12,1",
            "box,4,900,12,1",
            r"row 4, column start_s: is 900, but the row before of box is at 1800 s already: a series must go forward in time",
        ),
        (
            "lone,1,0,3,",
            "lone,1,60,3,",
            r"row 2, column start_s: is 60, but the first price of a series must hold from 0 s on",
        ),
        (
            "box,4,1800,12,9",
            "box,4,1800,12,",
            r"row 3, column spot_usd_per_hour: is empty: box has no spot price; give one",
        ),
        ("box,4,1800,12,9", "box,8,1800,12,9", r"row 3, column gpus_per_instance: is 8, but box has 4"),
        ("box,4,1800,12,9", "box,4,1800,-1,9", r"row 3, column on_demand_usd_per_hour: is -1, but must be at least 0"),
    ],
)
def test_a_malformed_series_names_file_row_and_column(write, before, after, message):
    with pytest.raises(InvalidTraceError, match=r"prices.csv, " + message):
        traces.load_offers(write(SERIES.replace(before, after)))


ZONES = f"""
{FOREIGN}
aws,box,V100,4,12,here,a,3
aws,box,V100,4,12,here,b,9
aws,box,V100,4,12,here,c,4
aws,box,V100,4,14,there,a,
aws,plain,,0,1,here,,
"""


def test_a_foreign_table_becomes_a_catalogue_with_the_median_spot_price_of_its_zones(write, tmp_path):
    offers = import_prices(write(ZONES), date="2026-07", source="a list of the provider").offers
    here, there = offers
    assert here.instance_type.usd_per_hour == {"on-demand": 12.0, "spot": 4.0}
    assert there.instance_type.usd_per_hour == {"on-demand": 14.0}
    assert (here.provider, here.gpu, here.region, here.date) == ("aws", "V100", "here", "2026-07")
    assert here.source == "a list of the provider; spot is the median over the zones"
    write_prices(tmp_path / "out" / "ours.csv", offers)
    assert traces.load_offers(tmp_path / "out" / "ours.csv") == offers


def test_the_columns_of_skypilot_are_known(write):
    header = "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,Price,Region,AvailabilityZone,SpotPrice"
    (box,) = import_prices(write(f"{header}\nbox,V100,4.0,8,12,x,xa,3\ncpu,,,4,1,x,xa,0.3")).offers
    assert box.instance_type == traces.load_offers(write(REGIONS))[0].instance_type


@pytest.mark.parametrize("table", [ZONES, "", SERIES])
def test_a_date_that_is_none_is_refused_in_the_option_and_in_the_table(write, table):
    table = table or REGIONS
    for date in ("yesterday", "2026-13", "2026-02-30", "26-07-31", "31.07.2026", "2026-7", "202607"):
        with pytest.raises(InputError, match=f"--date {date}: must be a date such as 2026-07-31, 2026-07 or 2026"):
            import_prices(write(table), date=date)
        header, *rows = table.strip().splitlines()
        if "date" not in header.split(","):
            dated = "\n".join([f"{header},date", *(f"{row},{date}" for row in rows)])
            with pytest.raises(InvalidTraceError, match=f"row 1, column date: is '{date}', but must be a date"):
                import_prices(write(dated))
    for date in ("2026", "2026-07", "2024-02-29", "2026-07-31T10:00:00Z", "2026-07-31 10:00"):
        assert all(offer.date for offer in import_prices(write(table), date=date).offers)


def test_a_catalogue_of_ours_without_dates_and_sources_gets_those_that_are_given(write):
    header, first, *rows = SERIES.strip().splitlines()
    assert "date" not in header.split(",")
    assert "source" not in header.split(",")
    offers = import_prices(write(SERIES), date="2026-07", source="a list").offers
    assert {(offer.date, offer.source) for offer in offers} == {("2026-07", "a list")}
    dated = "\n".join([f"{header},date", f"{first},2025-01", *(f"{row},2025-01" for row in rows)])
    assert {offer.date for offer in import_prices(write(dated), date="2026-07").offers} == {"2025-01"}


def test_a_catalogue_of_ours_is_imported_as_it_is(write, tmp_path):
    offers = import_prices(write(SERIES)).offers
    write_prices(tmp_path / "again.csv", offers)
    assert traces.load_offers(tmp_path / "again.csv") == offers


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (ZONES.replace("here,b,9", "here,b,-9"), r"row 2, column spot_usd_per_h: is -9, but must be at least 0"),
        (
            ZONES.replace("12,here,c", "13,here,c"),
            r"row 3, column ondemand_usd_per_h: is 13, but 12 in row 1, both of box in here: keep one",
        ),
        (
            ZONES.replace("4,12,here,b", "8,12,here,b"),
            r"row 2, column n_gpus: is 8, but 4 in row 1, both of box in here",
        ),
        (ZONES.replace("V100,4,12,here,b", "K80,4,12,here,b"), r"row 2, column accelerator: is K80, but V100 in row 1"),
        (
            ZONES.replace("here,b,9", "here,a,9"),
            r"row 2, column spot_usd_per_h: is 9, but 3 in row 1, both of box in here",
        ),
        (ZONES.replace("n_gpus", "cards"), r"column gpus_per_instance: has no such column, nor one called .*n_gpus"),
        ("name,gpus,Price\nbox,0,1", r"has no machine with GPUs"),
    ],
)
def test_a_foreign_table_that_lacks_something_says_where_and_what_would_do(write, table, message):
    with pytest.raises(InvalidTraceError, match=message):
        import_prices(write(table))


def test_rows_that_are_no_machine_are_left_out_by_name_and_counted(write):
    header = "InstanceType,AcceleratorName,AcceleratorCount,Price,SpotPrice,Region,AvailabilityZone"
    rows = "\n,A100,1.0,2.9,1.1,x,xa\nslice,A10,0.25,0.5,0.1,x,xa\ncpu,,,1,,x,xa\nlate,L4,1,,0.2,x,xa\nbox,V100,4.0,12,3,x,xa"
    imported = import_prices(write(header + rows))
    assert [offer.name for offer in imported.offers] == ["box"]
    assert imported.left_out == {
        "without the name of a machine": ["A100"],
        "with a part of a GPU": ["slice"],
        "without GPUs": ["cpu"],
        "without an on-demand price": ["late"],
    }
    assert next(imported.notes()) == "1 row left out, without the name of a machine: A100"


def test_rows_of_one_zone_that_say_the_same_are_one_row(write):
    table = ZONES.replace("aws,box,V100,4,14", "aws,box,V100,4,12.0,here,c,4\naws,box,V100,4,14")
    assert import_prices(write(table)).offers[0].instance_type.usd_per_hour == {"on-demand": 12.0, "spot": 4.0}


def test_a_machine_that_is_given_twice_names_both_rows(write):
    with pytest.raises(InvalidTraceError, match=r"row 4, column name: 'box' is given twice in here, first in row 1"):
        traces.load_offers(write(REGIONS + "box,4,13,3,here"))
    series = SERIES.replace("gpus_per_instance,start_s", "gpus_per_instance,gpu,start_s").replace(",4,", ",4,V100,")
    series = series.replace("lone,1,", "lone,1,V100,").replace("box,4,V100,1800", "box,4,K80,1800")
    with pytest.raises(InvalidTraceError, match=r"row 3, column gpu: is 'K80', but 'V100' in row 1, of the same box"):
        traces.load_offers(write(series))


def test_the_shipped_catalogue_says_who_where_and_what():
    offers = traces.shipped_offers()
    assert {offer.provider for offer in offers} == {"aws", "gcp", "azure"}
    assert all(offer.gpu and offer.region and offer.source for offer in offers)
    assert {"V100", "T4", "A100", "A10G", "L4", "L40S", "H100", "H200", "B200"} == {
        offer.gpu.partition("-")[0] for offer in offers
    }
    assert len({offer.name for offer in offers}) == len(offers) >= 75
    families = {"a2", "a3", "g2", "n1", "g4dn", "g5", "g6", "g6e", "p3", "p4d", "p4de", "p5", "p5en"}
    assert families <= {offer.name.partition(".")[0].partition("-")[0] for offer in offers}
    assert all(offer.date for offer in offers if offer.provider == "aws")
    starts = {offer.provider: offer.startup for offer in offers}
    assert starts == {"aws": "typical", "gcp": "gcp", "azure": "azure"}


def test_the_shipped_prices_are_those_of_the_shared_table(shared_data):
    offers = import_prices(shared_data / "cloud" / "prices.csv").offers
    found = {(offer.name, offer.region): offer.instance_type for offer in offers}
    for offer in traces.shipped_offers():
        if offer.source.startswith(("aws/karpenter", "andylizf/")):  # types that the table lacks
            continue
        if offer.name.startswith("n1-"):  # the table has the price of their accelerators alone
            added = found[f"gpu-addon nvidia-tesla-{offer.gpu[:4].rstrip('-').lower()}", "(us default)"].usd_per_hour
            gpus, cpus = offer.instance_type.gpus_per_instance, int(offer.name.split("-")[2].partition("+")[0])
            n1_usd = {"on-demand": 0.0475 * cpus, "spot": 0.01 * cpus}  # per CPU of n1-standard, in the same file
            summed = {market: n1_usd[market] + gpus * added[market] for market in n1_usd}
            assert offer.instance_type.usd_per_hour == pytest.approx(summed), offer.name
            continue
        region = "(us default)" if offer.provider == "gcp" else offer.region
        kind = found[offer.name, region]
        assert kind.gpus_per_instance == offer.instance_type.gpus_per_instance
        assert kind.usd_per_hour == pytest.approx(offer.instance_type.usd_per_hour, abs=1e-4)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "name,InstanceType,gpus,Price\na,b,1,3\n",
            "row 1, column name: is 'a', but InstanceType is 'b': keep one column",
        ),
        (
            "name,gpus,usd_per_hour,Price\na,1,3,4\n",
            "row 1, column usd_per_hour: is '3', but Price is '4': keep one column",
        ),
        (
            "name,gpus,Price\na,1,1e300\n",
            "row 1, column Price: is 1e\\+300, but must be at most 1,000,000 USD per hour",
        ),
        (
            "name,gpus,Price\na,0.5,3\nb,,3\n",
            "no machine .*: 1 row left out, with a part of a GPU: a; 1 row left out, without",
        ),
        ("name;gpus;Price\na;1;3,5\n", "is separated by semicolons: save it with commas"),
    ],
)
def test_a_price_table_that_contradicts_itself_or_means_nothing_is_refused(tmp_path, text, told):
    (tmp_path / "prices.csv").write_text(text)
    with pytest.raises(InvalidTraceError, match=told):
        import_prices(tmp_path / "prices.csv")


def test_two_columns_of_one_meaning_that_agree_are_one(tmp_path):
    (tmp_path / "prices.csv").write_text("name,gpus,usd_per_hour,Price\na,1,3,3.0\n")
    (offer,) = import_prices(tmp_path / "prices.csv").offers
    assert offer.instance_type.usd_per_hour == {"on-demand": 3.0}
