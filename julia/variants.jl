"""
    Variant

A named recipe: architecture, penalty, dropout, early stopping, optimiser and loss. See [`variant`](@ref).

# Fields
- `name::String`
- `architecture::String`: `"photo_cnn"` or `"dense"`.
- `hidden::Vector{Int}`: units of the hidden Dense layers.
- `penalty::Dict{String,Penalty}`: by group of kernels, `"conv"`, `"hidden"`, `"output"`; a group left out has none.
- `dropout::Dict{String,Float32}`: rate after the pooling (`"pool"`) and after every hidden Dense layer (`"hidden"`).
- `patience::Union{Nothing,Int}`: epochs without a better total validation loss before a fit stops; `nothing`: never.
- `epochs::Int`, `batch_size::Int`, `image_size::Int`: defaults of a fit.
- `learning_rate::Float32`: Adam's step size.
- `loss::String`: `"cross_entropy"` or `"squared_error"`.
- `made_for::String`: the data for which its document made it.
"""
struct Variant
    name::String
    architecture::String
    hidden::Vector{Int}
    penalty::Dict{String,Penalty}
    dropout::Dict{String,Float32}
    patience::Union{Nothing,Int}
    epochs::Int
    batch_size::Int
    image_size::Int
    learning_rate::Float32
    loss::String
    made_for::String
end

const LOSSES = ("cross_entropy", "squared_error")

# Accepts a row of the table and what `as_dict` of either language wrote.
function Variant(name::AbstractString, row::AbstractDict)
    stopping = get(row, "early_stopping", nothing)
    return Variant(
        name,
        row["architecture"],
        row["hidden"],
        Dict{String,Penalty}(
            group => penalty(; (Symbol(k) => λ for (k, λ) in λs)...) for (group, λs) in get(row, "penalty", Dict())
        ),
        Dict{String,Float32}(get(row, "dropout", Dict())),
        stopping === nothing ? get(row, "patience", nothing) : stopping["patience"],
        row["epochs"],
        row["batch_size"],
        row["image_size"],
        row["learning_rate"],
        get(row, "loss", "cross_entropy"),
        row["made_for"],
    )
end

const TABLE_FILE = joinpath(@__DIR__, "variants.toml")
include_dependency(TABLE_FILE)

# The names in the table's order, which a Dict would lose.
const NAMES = [m.captures[1] for m in eachmatch(r"^\[(\w+)\]"m, read(TABLE_FILE, String))]
const TABLE = let rows = TOML.parsefile(TABLE_FILE)
    [Variant(name, rows[name]) for name in NAMES]
end

"""
    variants()

Return the table of variants, a `Vector{Variant}` in the order of `julia/variants.toml`.

# Examples
```jldoctest
julia> length(variants())
10
```
"""
variants() = copy(TABLE)

"""
    variant(name; l1, l2, loss)

Return the variant of that name, if asked with other coefficients or another loss.

# Arguments
- `name::AbstractString`: a name of the table; a [`Variant`](@ref) is taken as it is.
- `l1::Real`, `l2::Real`: coefficients set on every kernel that the variant penalises; `nothing` leaves the table's.
- `loss::AbstractString`: `"cross_entropy"` on logits, or `"squared_error"`, `0.5·mean((softmax(z) − onehot)²)`.

# Returns
- `Variant`

# Throws
- `ArgumentError`: no such variant (the message proposes the nearest) or loss, a negative coefficient, or a coefficient
  for a variant that has no penalty.

# Examples
```jldoctest
julia> variant("l2").penalty["conv"]
L2(0.01f0)

julia> variant("l3")
ERROR: ArgumentError: `variant` must be one of baseline, dropout, early_stopping, l1, l2, dropout_early_stopping, elastic_net, mlp, dense_l2, dense_dropout; received: "l3". Did you mean l1 or l2?
[...]
```
"""
function variant(name::AbstractString; kwargs...)
    i = findfirst(==(name), NAMES)
    i === nothing && throw(unknown_name("variant", name, NAMES))
    return variant(TABLE[i]; kwargs...)
end

function variant(v::Variant; l1=nothing, l2=nothing, loss=v.loss)
    loss in LOSSES || throw(unknown_name("loss", loss, LOSSES))
    if (l1 !== nothing || l2 !== nothing) && isempty(v.penalty)
        throw(ArgumentError("The variant \"$(v.name)\" has no penalty, so `l1` and `l2` cannot be set."))
    end
    penalties = Dict{String,Penalty}(group => override(p, l1, l2) for (group, p) in v.penalty)
    fields = (f === :penalty ? penalties : f === :loss ? String(loss) : getfield(v, f) for f in fieldnames(Variant))
    return Variant(fields...)
end

function override(p::Penalty, l1, l2)
    λ₁, λ₂ = coefficients(p)
    return penalty(; l1=something(l1, λ₁), l2=something(l2, λ₂))
end

coefficients(::NoPenalty) = (0.0f0, 0.0f0)
coefficients(p::L1) = (p.λ, 0.0f0)
coefficients(p::L2) = (0.0f0, p.λ)
coefficients(p::ElasticNet) = (p.λ₁, p.λ₂)

"""
    as_dict(variant)

Return the variant as plain JSON-ready values, the form in `run.json`.
"""
function as_dict(v::Variant)
    λs(p) = Dict(name => shortest(λ) for (name, λ) in zip(("l1", "l2"), coefficients(p)) if !iszero(λ))
    return Dict{String,Any}(
        "name" => v.name,
        "architecture" => v.architecture,
        "hidden" => v.hidden,
        "penalty" => Dict(group => λs(p) for (group, p) in v.penalty),
        "dropout" => Dict(group => shortest(rate) for (group, rate) in v.dropout),
        "patience" => v.patience,
        "epochs" => v.epochs,
        "batch_size" => v.batch_size,
        "image_size" => v.image_size,
        "learning_rate" => shortest(v.learning_rate),
        "loss" => v.loss,
        "made_for" => v.made_for,
    )
end

# 0.01f0 as 0.01 and not 0.009999999776, so that both languages write the same file.
shortest(x::Float32) = parse(Float64, string(x))

function Base.show(io::IO, ::MIME"text/plain", v::Variant)
    println(io, "Variant \"", v.name, "\" (made for ", v.made_for, ")")
    println(io, "  architecture    ", v.architecture, ", hidden ", join(v.hidden, ", "))
    println(io, "  penalty         ", isempty(v.penalty) ? "none" : join(("$g: $p" for (g, p) in sort(v.penalty)), ", "))
    println(io, "  dropout         ", isempty(v.dropout) ? "none" : join(("$g: $p" for (g, p) in sort(v.dropout)), ", "))
    println(io, "  early stopping  ", v.patience === nothing ? "none" : "patience $(v.patience), best weights restored")
    print(io, "  fit             ", v.epochs, " epochs, batch ", v.batch_size, ", Adam ", v.learning_rate, ", ", v.loss)
end

"""
    unknown_name(argument, received, known)

Return the `ArgumentError` for a misspelt name; its message lists the known names and proposes the nearest.
"""
unknown_name(argument, received, known) = dispatch_barrier(name_error, argument, received, known)::ArgumentError

function name_error(argument, received, known)
    distances = [edit_distance(lowercase(string(received)), name) for name in known]
    nearest = minimum(distances)
    near = nearest <= max(1, length(string(received)) ÷ 2) ? known[findall(==(nearest), distances)] : String[]
    hint = isempty(near) ? "" : " Did you mean $(join(near, " or "))?"
    return ArgumentError("`$argument` must be one of $(join(known, ", ")); received: $(repr(received)).$hint")
end

# Levenshtein's distance, one row at a time.
function edit_distance(a::AbstractString, b::AbstractString)
    row = collect(0:length(b))
    for (i, x) in enumerate(a)
        diagonal, row[1] = row[1], i
        for (j, y) in enumerate(b)
            diagonal, row[j + 1] = row[j + 1], min(row[j] + 1, row[j + 1] + 1, diagonal + (x != y))
        end
    end
    return row[end]
end
