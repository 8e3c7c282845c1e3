"""
    Variant(; name, architecture, hidden, penalty, dropout, patience, epochs = 20, batch_size = 32, image_size = 180,
            learning_rate = 0.001, loss = "cross_entropy", made_for = "", backbone, proximal = false,
            balance = "none", chain)

What is trained, by name: architecture, penalty, dropout, early stopping, optimiser and loss. See [`variant`](@ref) for those of the table.

# Fields
- `name::String`: of letters, digits, `_` and `-`.
- `architecture::String`: `"photo_cnn"`, `"dense"`, `"transfer"`: Dense layers on a backbone's features, standardised; or `"chain"`: a network
  of your own, see [`network_variant`](@ref).
- `hidden::Vector{Int}`: units of the hidden Dense layers.
- `penalty::Dict{String,Penalty}`: by group of kernels, `"conv"`, `"hidden"`, `"output"`, of a network of your own `"kernels"`; a
  group left out has none.
- `dropout::Dict{String,Float32}`: rate after the pooling (`"pool"`) and after every hidden Dense layer (`"hidden"`).
- `patience::Union{Nothing,Int}`: epochs without a better total validation loss before a fit stops; `nothing`: never.
- `epochs::Int`, `batch_size::Int`, `image_size::Int`: defaults of a fit.
- `learning_rate::Float32`: Adam's step size.
- `loss::String`: `"cross_entropy"` or `"squared_error"`.
- `made_for::String`: the data for which its document made it.
- `backbone::Union{Nothing,String}`: what makes features of images; of the architecture `"transfer"` alone, which must have it.
- `proximal::Bool`: whether L1 is a proximal step after each step of Adam, which gives exact zeros ([`PhotoFlux.Proximal`](@ref)).
- `balance::String`: how classes of different sizes are balanced unless [`train`](@ref) is told otherwise.
- `chain::Union{Nothing,Dict{String,Any}}`: the network of the architecture `"chain"`, as data ([`PhotoFlux.describe`](@ref)).

# Throws
- `ArgumentError`: a value that cannot be used, such as a group that the architecture does not have.

# Examples
```jldoctest
julia> Variant(name="mine", architecture="dense", hidden=[64], penalty=Dict("conv" => L2(0.01)))
ERROR: ArgumentError: `penalty` of the architecture `dense` must be one of hidden, output; received: "conv".
```
"""
Base.@kwdef struct Variant
    name::String
    architecture::String
    hidden::Vector{Int}
    penalty::Dict{String,Penalty} = Dict{String,Penalty}()
    dropout::Dict{String,Float32} = Dict{String,Float32}()
    patience::Union{Nothing,Int} = nothing
    epochs::Int = 20
    batch_size::Int = 32
    image_size::Int = 180
    learning_rate::Float32 = 0.001
    loss::String = "cross_entropy"
    made_for::String = ""
    backbone::Union{Nothing,String} = nothing
    proximal::Bool = false
    balance::String = "none"
    chain::Union{Nothing,Dict{String,Any}} = nothing

    function Variant(name, architecture, hidden, penalty, dropout, patience, epochs, batch_size, image_size, learning_rate,
        loss, made_for, backbone, proximal, balance, chain)
        require(name isa AbstractString && occursin(r"^[\w-]+\z", name), "name", "letters, digits, _ and -", name)
        haskey(GROUPS_OF, architecture) || throw(unknown_name("architecture", architecture, sort!(collect(keys(GROUPS_OF)))))
        require(made_for isa AbstractString, "made_for", "a text", made_for)
        require(hidden isa AbstractVector, "hidden", "a list of units", hidden)
        require_whole("hidden", 1, hidden...)
        require(penalty isa AbstractDict, "penalty", "a Dict by group", penalty)
        require(dropout isa AbstractDict, "dropout", "a Dict by group", dropout)
        for (field, given) in (:penalty => penalty, :dropout => dropout), group in keys(given)
            known = GROUPS_OF[architecture][field]
            group in known || throw(unknown_name("$field` of the architecture `$architecture", group, known))
            require(group != "hidden" || !isempty(hidden), field, "without \"hidden\", as there are no hidden layers", given)
        end
        foreach(p -> require(p isa Penalty, "penalty", "a Penalty a group, such as L2(0.01)", p), values(penalty))
        for rate in values(dropout)
            require(rate isa Real && !(rate isa Bool) && 0 <= rate && Float32(rate) < 1, "dropout", "a rate of 0 or more and below 1", rate)
        end
        patience === nothing || require_whole("patience", 1, patience)
        require_whole("epochs", 1, epochs)
        require_whole("batch_size", 1, batch_size)
        require_whole("image_size", 2, image_size)
        require_positive("learning_rate", learning_rate)
        loss in LOSSES || throw(unknown_name("loss", loss, LOSSES))
        if architecture == TRANSFER
            require(backbone isa AbstractString && !isempty(strip(backbone)), "backbone", "the name of one, such as efficientnet-lite2", backbone)
        else
            require(backbone === nothing, "backbone", "left out, as the architecture is not $TRANSFER", backbone)
        end
        require(proximal isa Bool, "proximal", "true or false", proximal)
        require(!proximal || any(p -> first(coefficients(p)) > 0, values(penalty)), "proximal", "false where no kernel has an L1 penalty", proximal)
        balance in BALANCES || throw(unknown_name("balance", balance, BALANCES))
        if architecture == NETWORK
            require(!proximal, "proximal", "false, as the architecture is $NETWORK", proximal)
            require(isempty(hidden), "hidden", "empty, as the chain has all layers", hidden)
            require(chain isa AbstractDict, "chain", "the description of a network, as `network_variant` makes it", chain)
        else
            require(chain === nothing, "chain", "left out, as the architecture is not $NETWORK", chain)
        end
        # Copies, so that what was checked stays.
        return new(name, architecture, Vector{Int}(hidden), Dict{String,Penalty}(penalty), Dict{String,Float32}(dropout), patience,
            epochs, batch_size, image_size, learning_rate, loss, made_for, backbone, proximal, balance,
            chain === nothing ? nothing : as_network(chain))
    end
end

# A copy in the types of `describe`.
as_network(d::AbstractDict) = Dict{String,Any}(String(name) => as_network(value) for (name, value) in d)
as_network(d::AbstractVector) = Any[as_network(value) for value in d]
as_network(value) = value

"""
    takes_features(variant)

Return whether a variant is fitted to a backbone's features, `1×1×F×N`, and not to images.
"""
takes_features(v::Variant) = v.architecture == TRANSFER

const TRANSFER = "transfer"
const NETWORK = "chain"  # a network of a user's own
const LOSSES = ("cross_entropy", "squared_error")
const BALANCES = ("none", "weights", "augment")

# The groups of kernels that can have a penalty, and of layers that dropout can follow, of each architecture (layers.jl).
const GROUPS_OF = Dict(
    "photo_cnn" => (; penalty=("conv", "hidden", "output"), dropout=("pool", "hidden")),
    "dense" => (; penalty=("hidden", "output"), dropout=("hidden",)),
    TRANSFER => (; penalty=("hidden", "output"), dropout=("hidden",)),
    NETWORK => (; penalty=("kernels",), dropout=()),
)

require(holds, argument, expected, received) =
    holds || throw(ArgumentError("`$argument` must be $expected; received: $(repr(received))."))

function require_whole(argument, least, values...)
    foreach(n -> require(n isa Integer && !(n isa Bool) && n >= least, argument, "a whole number, $least or more", n), values)
end

require_positive(argument, x) =
    require(x isa Real && !(x isa Bool) && isfinite(Float32(x)) && Float32(x) > 0, argument, "a finite number above 0", x)

# What a row of the table must have, and what it may; also what `as_dict` of either language wrote.
const ROW_FIELDS = ("architecture", "hidden", "epochs", "batch_size", "learning_rate", "image_size", "made_for")
const OPTIONAL_FIELDS = ("name", "penalty", "dropout", "early_stopping", "patience", "loss", "backbone", "proximal", "balance", "chain")
# What a row of a user's own must have.
const OWN_FIELDS = ("architecture", "hidden")

Variant(row::AbstractDict) = Variant(get(row, "name", ""), row)

function Variant(name::AbstractString, row::AbstractDict; needed=ROW_FIELDS)
    for field in keys(row)
        field in (ROW_FIELDS..., OPTIONAL_FIELDS...) ||
            throw(unknown_name("field` of the variant `$name", field, (ROW_FIELDS..., OPTIONAL_FIELDS...)))
    end
    require(all(field -> haskey(row, field), needed), "variant", "a table with $(join(needed, ", "))", row)
    fields = Dict{Symbol,Any}(Symbol(field) => value for (field, value) in row if field != "early_stopping")
    fields[:penalty] = Dict(group => penalty_of(λs) for (group, λs) in table_of(row, "penalty"))
    fields[:dropout] = table_of(row, "dropout")
    stopping = table_of(row, "early_stopping")
    if !isempty(stopping)
        require(collect(keys(stopping)) == ["patience"], "early_stopping", "a table with patience", stopping)
        fields[:patience] = stopping["patience"]
    end
    return Variant(; fields..., name)
end

function table_of(row, field)
    given = get(row, field, Dict{String,Any}())
    require(given isa AbstractDict, field, "a table", given)
    return given
end

function penalty_of(λs)
    expected = "a table of l1 and l2, each a finite number, 0 or more"
    require(λs isa AbstractDict && all(λ -> λ isa Real, values(λs)), "penalty", expected, λs)
    foreach(name -> name in ("l1", "l2") || throw(unknown_name("penalty", name, ("l1", "l2"))), keys(λs))
    return penalty(; l1=get(λs, "l1", 0), l2=get(λs, "l2", 0))
end

const TABLE_FILE = joinpath(@__DIR__, "variants.toml")
include_dependency(TABLE_FILE)

# The names in the table's order, which a Dict would lose.
const NAMES = [m.captures[1] for m in eachmatch(r"^\[([\w-]+)\]"m, read(TABLE_FILE, String))]
const TABLE = let rows = TOML.parsefile(TABLE_FILE)
    [Variant(name, rows[name]) for name in NAMES]
end

"""
    variants()
    variants(path)

Return the table of variants, a `Vector{Variant}` in the order of `julia/variants.toml`, or those of a file of your own, by name.

# Arguments
- `path::AbstractString`: a TOML file whose rows are like those of the table: `[name]` and below it `architecture`, `hidden`, and whatever
  else is not as in [`Variant`](@ref).

# Returns
- `Vector{Variant}`

# Throws
- `ArgumentError`: the file cannot be read or is not TOML, or a row cannot be used.

# Examples
```jldoctest
julia> length(variants())
14

julia> file = joinpath(mktempdir(), "my.toml");

julia> write(file, "[wide]\\narchitecture = 'dense'\\nhidden = [24]\\npenalty.hidden = { l1 = 0.001 }");

julia> only(variants(file)).penalty["hidden"]
L1(0.001f0)
```
"""
variants() = copy(TABLE)

function variants(path::AbstractString)
    isfile(path) || throw(ArgumentError("There is no file $path. Name a TOML file with variants."))
    filesize(path) <= VARIANTS_BYTES || throw(ArgumentError("$path has more than $VARIANTS_BYTES bytes: it is no file of variants."))
    rows = TOML.tryparsefile(path)
    rows isa TOML.ParserError && throw(ArgumentError("$path is not TOML: $(first(split(sprint(showerror, rows), '\n')))"))
    isempty(rows) && throw(ArgumentError("$path has no variant. Begin one with [its-name], `architecture` and `hidden`."))
    return [own_variant(path, name, rows[name]) for name in sort!(collect(keys(rows)))]
end

const VARIANTS_BYTES = 2^20

function own_variant(path, name, row)
    made = try
        require(row isa AbstractDict && !haskey(row, "name"), name, "a table [its-name] of $(join(OWN_FIELDS, ", ")) and others", row)
        Variant(name, row; needed=OWN_FIELDS)
    catch err
        err isa ArgumentError || rethrow()
        throw(ArgumentError("$path, [$name]: $(err.msg)"))
    end
    i = findfirst(==(name), NAMES)
    i === nothing || as_dict(TABLE[i]) == as_dict(made) ||
        throw(ArgumentError("$path: the name $name is that of another variant of the table. Take a name of your own."))
    return made
end

"""
    variant(name; l1, l2, loss, backbone)

Return the variant of that name, if asked with other coefficients, another loss or on another backbone.

# Arguments
- `name::AbstractString`: a name of the table; `"my.toml"`, a file with one variant, see [`variants`](@ref); or `"my.toml:name"`, one of
  several. A [`Variant`](@ref) is taken as it is.
- `l1::Real`, `l2::Real`: coefficients set on every kernel that the variant penalises; `nothing` leaves the table's.
- `loss::AbstractString`: `"cross_entropy"` on logits, or `"squared_error"`, `0.5·mean((softmax(z) − onehot)²)`.
- `backbone::AbstractString`: of the architecture `"transfer"`, what [`load_backbone`](@ref) takes.

# Returns
- `Variant`

# Throws
- `ArgumentError`: no such variant (the message proposes the nearest) or loss, a negative coefficient, or a coefficient
  for a variant that has no penalty, or a backbone for one that has none.

# Examples
```jldoctest
julia> variant("l2").penalty["conv"]
L2(0.01f0)

julia> variant("transfer"; backbone="efficientnet-lite0").backbone
"efficientnet-lite0"

julia> variant("l3")
ERROR: ArgumentError: `variant` must be one of baseline, dropout, early_stopping, l1, l2, dropout_early_stopping, elastic_net, mlp, dense_l2, dense_dropout, transfer, transfer_l1, transfer_elastic_net, transfer_mlp; received: "l3". Did you mean l1 or l2?
[...]
```
"""
function variant(name::AbstractString; kwargs...)
    parts = match(r"^(.*\.toml)(?::([^/\\]*))?$"si, name)
    parts === nothing || return variant(one_of(variants(parts[1]), parts[1], parts[2]); kwargs...)
    i = findfirst(==(name), NAMES)
    i === nothing && throw(unknown_name("variant", name, NAMES))
    return variant(TABLE[i]; kwargs...)
end

function one_of(own, path, name)
    names = [v.name for v in own]
    if name === nothing
        length(own) == 1 || throw(ArgumentError("$path has $(join(names, ", ")): say which, as in $path:$(first(names))."))
        return only(own)
    end
    i = findfirst(==(name), names)
    i === nothing && throw(unknown_name("variant` of `$path", name, names))
    return own[i]
end

function variant(v::Variant; l1=nothing, l2=nothing, loss=v.loss, backbone=v.backbone)
    if (l1 !== nothing || l2 !== nothing) && isempty(v.penalty)
        throw(ArgumentError("The variant \"$(v.name)\" has no penalty, so `l1` and `l2` cannot be set."))
    end
    penalties = Dict{String,Penalty}(group => override(p, l1, l2) for (group, p) in v.penalty)
    fields = (; (f => getfield(v, f) for f in fieldnames(Variant))...)
    return Variant(; fields..., penalty=penalties, loss=String(loss), backbone)
end

function override(p::Penalty, l1, l2)
    λ₁, λ₂ = coefficients(p)
    return penalty(; l1=something(l1, λ₁), l2=something(l2, λ₂))
end

"""
    as_dict(variant)

Return the variant as plain JSON-ready values, the form in `run.json`; `backbone`, `proximal`, `balance` and
`chain` only where they are set.
"""
function as_dict(v::Variant)
    unset = (; backbone=nothing, proximal=false, balance="none", chain=nothing)
    shown(field) = !haskey(unset, field) || getfield(v, field) != unset[field]
    return Dict{String,Any}(string(field) => as_json(getfield(v, field)) for field in fieldnames(Variant) if shown(field))
end

as_json(value) = value
as_json(x::Float32) = shortest(x)
as_json(groups::Dict) = Dict(group => as_json(value) for (group, value) in groups)
as_json(p::Penalty) = Dict(name => shortest(λ) for (name, λ) in zip(("l1", "l2"), coefficients(p)) if !iszero(λ))

# 0.01f0 as 0.01 and not 0.009999999776, so that both languages write the same file.
shortest(x::Float32) = parse(Float64, string(x))

function Base.show(io::IO, ::MIME"text/plain", v::Variant)
    println(io, "Variant \"", v.name, "\"", isempty(v.made_for) ? "" : " (made for $(v.made_for))")
    inside = v.chain === nothing ? "hidden " * (isempty(v.hidden) ? "none" : join(v.hidden, ", ")) : "$(length(v.chain["layers"])) layers"
    println(io, "  architecture    ", v.architecture, ", ", inside)
    v.backbone === nothing || println(io, "  backbone        ", v.backbone)
    print(io, "  penalty         ", isempty(v.penalty) ? "none" : join(("$g: $p" for (g, p) in sort(v.penalty)), ", "))
    println(io, v.proximal ? ", L1 by proximal steps" : "")
    println(io, "  dropout         ", isempty(v.dropout) ? "none" : join(("$g: $p" for (g, p) in sort(v.dropout)), ", "))
    println(io, "  early stopping  ", v.patience === nothing ? "none" : "patience $(v.patience), best weights restored")
    print(io, "  fit             ", v.epochs, " epochs, batch ", v.batch_size, ", Adam ", v.learning_rate, ", ", v.loss)
    v.balance == "none" || print(io, ", classes balanced by ", v.balance)
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
