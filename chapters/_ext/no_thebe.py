"""Leave out Thebe, which Jupyter Book puts on every page (twice, which is a script error) and would load from a CDN."""


def drop_thebe(app, pagename, templatename, context, doctree):
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe" not in str(getattr(script, "filename", "")) + str(getattr(script, "attributes", "")).lower()
    ]


def setup(app):
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
