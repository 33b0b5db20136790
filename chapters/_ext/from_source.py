"""What the autoapi directives of chapters/api.md show: what a module defines and documents itself.

They read modules that need torch from their source. Unlike autodoc they would also list what a
module imports, and what has no docstring.
"""


def leave_out(app, what, name, found, skip, options):
    """True for what is imported or undocumented; None leaves the decision to Sphinx."""
    read_from_source = type(found).__module__.startswith("autoapi.")
    if read_from_source and (found.imported or not found.docstring):
        return True
    return None


def setup(app):
    app.connect("autodoc-skip-member", leave_out)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
