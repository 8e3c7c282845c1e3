# The order in which src/PhotoFlux.jl includes the files is the order of dependency: a file uses no name that only later files
# define. So there is no circle between files either. Methods may be added to a function of an earlier file.

# The definition inside a docstring, `const` or a macro such as @inline; else the expression itself.
function undressed(ex)
    ex isa Expr || return ex
    ex.head in (:const, :global) && return undressed(ex.args[1])
    return ex.head === :macrocall && length(ex.args) > 2 ? undressed(ex.args[end]) : ex
end

# The name of what an expression defines at top level; nothing where it defines none, or a method of another module's function.
defined(ex) = nothing

function defined(ex::Expr)
    ex = undressed(ex)
    ex isa Expr || return nothing
    ex.head in (:function, :macro, :(=), :abstract, :primitive) && return name_of(ex.args[1])
    return ex.head === :struct ? name_of(ex.args[2]) : nothing
end

name_of(ex) = ex isa Symbol ? ex : nothing
name_of(ex::Expr) = ex.head in (:call, :where, :<:, :curly) || ex.head === :(::) && length(ex.args) == 2 ? name_of(ex.args[1]) : nothing

# Every name that an expression binds anywhere: arguments, variables, keywords, fields.
function bound!(names, ex)
    ex isa Expr || return names
    if ex.head in (:function, :macro, :->, :do)
        pattern!(names, ex.head === :do ? ex.args[2].args[1] : ex.args[1])
    elseif ex.head in (:(=), :kw, :local) || endswith(string(ex.head), '=') && ex.head ∉ (:(==), :<=, :>=, :!=)
        pattern!(names, ex.args[1])
    elseif ex.head === :try && ex.args[2] isa Symbol
        push!(names, ex.args[2])
    elseif ex.head === :where
        foreach(parameter -> pattern!(names, parameter), ex.args[2:end])
    elseif ex.head === :struct
        foreach(field -> pattern!(names, undressed(field)), ex.args[3].args)
    end
    foreach(part -> bound!(names, part), ex.args)
    return names
end

# The names in the left side of an assignment or in a signature.
pattern!(names, ex) = ex isa Symbol ? push!(names, ex) : names

function pattern!(names, ex::Expr)
    if ex.head === :call
        foreach(part -> pattern!(names, part), ex.args)
    elseif ex.head in (:(::), :kw, :..., :(=), :<:, :where)
        length(ex.args) == 1 && ex.head === :(::) || pattern!(names, ex.args[1])
    elseif ex.head in (:tuple, :parameters, :macrocall)
        foreach(part -> pattern!(names, part), ex.args)
    end
    return names
end

# Every name in an expression but quoted ones, which are fields and symbols, and those of other modules.
used!(names, ex) = ex isa Symbol ? push!(names, ex) : names

function used!(names, ex::Expr)
    ex.head in (:using, :import, :export, :public) || foreach(part -> used!(names, part), ex.args)
    return names
end

# What each of the files, pairs of a name and its text in the order of inclusion, uses of files that come after it.
function upward_uses(files)
    parsed = [file => statements(Meta.parseall(text)) for (file, text) in files]
    first_place, words = Dict{Symbol,Int}(), String[]
    for (place, (_, expressions)) in enumerate(parsed), ex in expressions
        name = defined(ex)
        name === nothing || get!(first_place, name, place)
    end
    for (place, (file, expressions)) in enumerate(parsed), ex in expressions
        for name in sort!(collect(setdiff(used!(Set{Symbol}(), ex), bound!(Set{Symbol}(), ex))))
            defining = get(first_place, name, 0)
            defining > place && push!(words, "$file uses `$name`, which $(first(files[defining])) defines, included later")
        end
    end
    return unique(words)
end

# Top-level expressions, those of modules inside too.
statements(ex) = [ex]

function statements(ex::Expr)
    ex.head in (:toplevel, :block) && return reduce(vcat, map(statements, ex.args); init=[])
    return ex.head === :module ? statements(ex.args[3]) : [ex]
end

# The files in the order in which they are included, from a root on; what includes others comes before them.
function included(path)
    text = read(path, String)
    files = [relpath(path, pkgdir(PhotoFlux)) => text]
    for match in eachmatch(r"^\s*include\(\"(.+?)\"\)"m, text)
        append!(files, included(normpath(dirname(path), match[1])))
    end
    return files
end

@testset "what the check finds" begin
    @test upward_uses(["a" => "f(x) = g(x)", "b" => "g(x) = x"]) == ["a uses `g`, which b defines, included later"]
    @test upward_uses(["a" => "\"\"\"Doc.\"\"\"\n@inline f(x::T) = 1", "b" => "Base.@kwdef struct T{S} <: Real\n  a::S = 1\nend"]) ==
          ["a uses `T`, which b defines, included later"]
    @test upward_uses(["a" => "const A = [B for i in 1:2]", "b" => "const B = 3"]) == ["a uses `B`, which b defines, included later"]
    @test upward_uses(["a" => "module M\nf() = map(1:2) do i\n  \"\$(g(i))\"\nend\nend", "b" => "function g end"]) ==
          ["a uses `g`, which b defines, included later"]
    # Arguments, variables, keywords, fields, quoted names and methods of earlier functions are no uses.
    for used in ("f(g) = g", "f(x) = (g = x; g)", "f(x) = [g for g in x]", "f(x) = h(x; g=1)", "f(x) = x.g", "f() = :g", "f(; g=2) = g",
        "f(x) = map(g -> g, x)", "f(x) = map(x) do g\n g\nend", "struct S\n  g::Int\nend", "f((; g)) = g", "g() = 1", "function f()\n  g(x) = x\n  g(1)\nend", "f(x::G) where {G} = 1")
        @test upward_uses(["a" => used, "b" => "g(x) = x\nstruct G end"]) == []
    end
end

@testset "no file uses what a later one defines" begin
    files = included(joinpath(pkgdir(PhotoFlux), "src", "PhotoFlux.jl"))
    @test upward_uses(files) == []
    sources = [joinpath(folder, file) for (folder, _, names) in walkdir(joinpath(pkgdir(PhotoFlux), "julia")) for file in names if endswith(file, ".jl")]
    @test sort(relpath.(sources, pkgdir(PhotoFlux))) == sort(first.(files)[2:end])
    @test length(files) > 20
end
