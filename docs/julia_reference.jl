# Writes the reference of the Julia package from the docstrings of what it exports.
#
# `julia --project docs/julia_reference.jl` writes docs/reference/julia.md, or prints it with `--print`; a test asks
# whether it is as the docstrings are today. Of Documenter's markup there are `@ref` links and `jldoctest` blocks only.

using PhotoFlux

const PAGE = joinpath(@__DIR__, "reference", "julia.md")

# What is not exported and is spoken of nevertheless.
const INNER = (:Fit, :schedule_factor, :describe, :cat_channels)
# What is exported, and the inner names, by what it is for.
const SECTIONS = (
    "Training and using a model" => (:train, :evaluate, :predict, :Run, :save_run, :load_run, :PhotoFluxClassifier),
    "Callbacks" => (:on_train_begin, :on_epoch_begin, :on_batch_end, :on_epoch_end, :on_train_end, :stop!, :Fit, :schedule_factor),
    "Variants" => (:variants, :variant, :Variant),
    "A network of your own" => (:network_variant, :describe, :cat_channels),
    "Data" => (:open_dataset, :PreparedDataset, :indices),
    "Penalties and the optimiser" => (:NoPenalty, :L1, :L2, :ElasticNet, :KerasAdam),
    "Backbones" => (:load_backbone, :backbone_features, :fine_tune, :save_backbone),
    "Layers and weights" => (:layers, :build_model, :read_weights, :write_weights, :load_weights!),
)

const HEAD = """
# Julia

<!-- made by docs/julia_reference.jl -->

What `using PhotoFlux` brings, with the text that `?name` shows. [Julia without Python](../julia.md) has a session.
"""

documented() = [filter(!=(:PhotoFlux), names(PhotoFlux)); INNER...]

docstring(name) = [join(text for text in doc.text if text isa String) for doc in docs_of(name)]
docs_of(name) = (multi = Base.Docs.meta(PhotoFlux)[Base.Docs.Binding(PhotoFlux, name)]; [multi.docs[sig] for sig in multi.order])

# `train` and not `Train`: HTML tells their letters apart, a heading's own anchor does not.
anchor(name) = "PhotoFlux.$name"

function markdown(text)
    code, lines = false, String[]
    for line in split(rstrip(text), '\n')
        code ⊻= startswith(line, "```")
        line = replace(line, r"^```jldoctest.*" => "```julia-repl")
        if !code
            line = replace(line, r"^#+ (.*)" => s"**\1**\n")
            line = replace(line, r"\[`([^`]*)`\]\(@ref\)" => reference)
        end
        push!(lines, line)
    end
    # The signature, which is indented, as a block of Julia.
    signature = something(findfirst(line -> !startswith(line, "    ") && !isempty(line), lines), 1) - 1
    head = [chopprefix(line, "    ") for line in lines[1:signature] if !isempty(line)]
    body = join(lines[(signature + 1):end], '\n')
    return isempty(head) ? body : "```julia\n$(join(head, '\n'))\n```\n\n$body"
end

function reference(link)
    name = match(r"`([^`]*)`", link)[1]
    bare = chopprefix(name, "PhotoFlux.")
    return Symbol(bare) in documented() ? "[`$name`](#$(anchor(bare)))" : "`$name`"
end

function page()
    listed = [name for (_, members) in SECTIONS for name in members]
    missed = symdiff(listed, documented())
    isempty(missed) || error("SECTIONS and what PhotoFlux exports, with INNER, differ in $(join(missed, ", "))")
    parts = String[HEAD]
    for (title, members) in SECTIONS
        push!(parts, "## $title\n")
        for name in members
            push!(parts, "<a id=\"$(anchor(name))\"></a>\n\n### `$name`\n")
            append!(parts, markdown(text) * "\n" for text in docstring(name))
        end
    end
    return join(parts, '\n')
end

if "--print" in ARGS
    print(page())
else
    write(PAGE, page())
end
