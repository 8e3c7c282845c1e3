const DOCS = Base.Docs.meta(PhotoFlux)

# Ambiguities, undefined exports, stale and unbounded dependencies, piracy; where Aqua is installed.
if Base.find_package("Aqua") === nothing
    @info "Aqua is not installed: its checks did not run."
else
    @eval using Aqua: Aqua
    # persistent_tasks starts another Julia that resolves the package anew, which needs a registry.
    Aqua.test_all(PhotoFlux; persistent_tasks=false)
end

@testset "every public name has a docstring" begin
    @test filter(name -> !haskey(DOCS, Base.Docs.Binding(PhotoFlux, name)), names(PhotoFlux)) == []
end

@testset "the docstring of a public name has its sections, $name" for name in filter(!=(:PhotoFlux), names(PhotoFlux))
    texts = [text for doc in values(DOCS[Base.Docs.Binding(PhotoFlux, name)].docs) for text in doc.text if text isa String]
    headings = [m[1] for m in eachmatch(r"^# (\w+)"m, join(texts))]
    public = getfield(PhotoFlux, name)
    if public isa Function
        @test issubset(("Arguments", "Returns", "Throws"), headings)
    elseif public !== NoPenalty
        @test "Fields" in headings || "Arguments" in headings
    end
end

# Evaluates a docstring's examples and compares what is shown; `[...]` stands for anything, as in Documenter.
function shown(scope, code)
    try
        value = Core.eval(scope, Meta.parseall(code))
        return value === nothing || endswith(code, ';') ? "" : replace(repr(MIME("text/plain"), value), "PhotoFlux." => "")
    catch err
        return "ERROR: " * sprint(showerror, err)
    end
end

function examples(docs)
    texts = [text for multi in values(docs) for doc in values(multi.docs) for text in doc.text if text isa String]
    blocks = [m[1] for text in texts for m in eachmatch(r"```jldoctest\n(.*?)```"s, text)]
    return [[Tuple(m) for m in eachmatch(r"julia> (.*?)\n(.*?)(?=\njulia> |\z)"s, rstrip(block))] for block in
        map(block -> rstrip(block) * "\n", blocks)]
end

@testset "the docstrings' examples are true" begin
    all_examples = examples(DOCS)
    @test length(all_examples) >= 10
    for block in all_examples
        scope = Module()
        Core.eval(scope, :(using PhotoFlux))
        for (code, expected) in block
            expected = strip(expected)
            if endswith(expected, "[...]")
                @test startswith(shown(scope, code), strip(chopsuffix(expected, "[...]")))
            else
                @test strip(shown(scope, code)) == expected
            end
        end
    end
end
