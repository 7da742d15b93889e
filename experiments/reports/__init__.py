"""Reports: what a folder of results says, as one page that needs nothing else.

    page        what a page is made of; rendering it with `page.html.j2`, `page.css` and `page.js`
    charts      traces for Plotly from the tables of policies
    decisions   what a policy decided in a run, when, and what it knew then
    timeline    the machines and trials of a run as a chart
    what_if     the same runs with a tenth more time or money
    of_run, of_comparison, of_sweep, of_recommendation    a page from a folder of each kind
    build       the page of any folder
    perfetto    a run as a trace for ui.perfetto.dev

May import everything of experiments but `claims` and `cli`; jinja2 and plotly only when a page is written.
"""
