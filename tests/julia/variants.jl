using PhotoFlux: Proximal, as_dict, kernel_penalties, takes_features

@testset "the table is the design's" begin
    @test [v.name for v in variants()] == ["baseline", "dropout", "early_stopping", "l1", "l2",
        "dropout_early_stopping", "elastic_net", "mlp", "dense_l2", "dense_dropout", "transfer", "transfer_l1",
        "transfer_elastic_net", "transfer_mlp"]
    rows = Dict(v.name => v for v in variants())
    @test all(rows[n].patience == 5 && rows[n].epochs == 30 for n in ("early_stopping", "dropout_early_stopping"))
    @test all(v.patience === nothing for v in variants() if !occursin(r"early_stopping|transfer", v.name))
    @test all(rows[n].dropout == Dict("pool" => 0.25f0, "hidden" => 0.5f0) for n in ("dropout", "dropout_early_stopping"))
    @test rows["mlp"].dropout == Dict("hidden" => 0.2f0)
    @test rows["mlp"].hidden == [512, 256]
    @test rows["mlp"].learning_rate == 1.0f-4
    @test rows["dense_dropout"].hidden == [64, 64]
    @test all((v.backbone !== nothing) == takes_features(v) == startswith(v.name, "transfer") for v in variants())
    @test [v.name for v in variants() if v.proximal] == ["transfer_l1", "transfer_elastic_net"]
    @test all(v.batch_size == 32 && v.loss == "cross_entropy" for v in variants())
end

@testset "a wrong name proposes the nearest" begin
    @test_throws "received: \"l3\". Did you mean l1 or l2?" variant("l3")
    @test_throws "Did you mean elastic_net?" variant("elasticnet")
    @test_throws ArgumentError variant("")
    message = try variant("xyzzy_quux_plugh") catch err; sprint(showerror, err) end
    @test !occursin("Did you mean", message)
end

@testset "other coefficients and losses" begin
    v = variant("elastic_net"; l2=0.5)
    @test v.penalty["conv"] == ElasticNet(0.005, 0.5)
    @test v.penalty["hidden"] == L2(0.5)
    @test variant("l2"; l2=0).penalty["conv"] isa NoPenalty
    changed = variant("transfer_l1"; l1=0.5)
    @test (changed.backbone, changed.proximal, changed.penalty) == ("efficientnet-lite2", true, Dict("output" => L1(0.5)))
    @test_throws "`proximal` must be false where no kernel has an L1 penalty" variant("transfer_l1"; l1=0)
    @test variant("mlp"; loss="squared_error").loss == "squared_error"
    @test variant("l2").penalty["conv"] == L2(0.01)  # the table is untouched
    @test_throws "has no penalty" variant("baseline"; l2=0.1)
    @test_throws "0 or more" variant("l2"; l2=-1)
    @test_throws "0 or more" variant("l2"; l2=1e39)  # infinite as Float32
    @test_throws "0 or more" variant("l2"; l2=true)
    @test_throws "must be one of cross_entropy, squared_error" variant("l2"; loss="mse")
end

# A variant with all that can be named, and the same with one value that cannot be.
const GOOD = (; name="mine-1", architecture="photo_cnn", hidden=[8], penalty=Dict("conv" => L1(0.1)), dropout=Dict("pool" => 0.5),
    patience=3, epochs=1, batch_size=1, image_size=2, learning_rate=1, loss="squared_error", made_for="a test")

@testset "a variant of one's own" begin
    v = Variant(; GOOD...)
    @test (v.name, v.dropout["pool"], v.learning_rate, v.patience) == ("mine-1", 0.5f0, 1.0f0, 3)
    plain = Variant(; name="mine", architecture="dense", hidden=[])
    @test (plain.epochs, plain.batch_size, plain.learning_rate, plain.loss) == (20, 32, 0.001f0, "cross_entropy")
    @test isempty(plain.penalty) && isempty(plain.dropout) && plain.patience === nothing
    @test size(build_model(plain, (4, 3, 1), 2)[:output].weight) == (1, 12)
end

# The same as Python reads it (tests/python/model/test_own_variants.py).
@testset "a file of variants" begin
    file = joinpath(mktempdir(), "my.toml")
    wide = """
    [wide]
    architecture = "dense"
    hidden = [24]
    penalty.hidden = { l1 = 0.001, l2 = 0.002 }
    dropout = { hidden = 0.25 }
    early_stopping = { patience = 3 }
    epochs = 2
    image_size = 16
    """
    write(file, wide)
    v = Variant(; name="wide", architecture="dense", hidden=[24], epochs=2, image_size=16, patience=3, dropout=Dict("hidden" => 0.25),
        penalty=Dict("hidden" => ElasticNet(0.001, 0.002)))
    @test as_dict(variant(file)) == as_dict(variant("$file:wide")) == as_dict(only(variants(file))) == as_dict(v)
    @test variant(file; l2=0.5).penalty["hidden"] == ElasticNet(0.001, 0.5)
    run = train(variant(file), data_of(v); batch_size=7)
    @test as_dict(load_run(save_run(joinpath(dirname(file), "run"), run)).variant) == as_dict(v)
    write(file, wide * "[narrow]\narchitecture = 'dense'\nhidden = [4]")
    @test [v.name for v in variants(file)] == ["narrow", "wide"] && variant("$file:narrow").hidden == [4]
    @test_throws "has narrow, wide: say which, as in $file:narrow" variant(file)
    @test_throws "Did you mean narrow?" variant("$file:narow")
    for (text, message) in ("" => "has no variant", "[a" => "is not TOML", "#"^2_000_000 => "has more than 1048576 bytes", "a = 1" => "`a` must be a table",
        "[a]\nhidden = [1]" => "must be a table with architecture, hidden", "[a]\narchitecture = 'dense'\nhidden = []\nname = 'b'" => "`a` must be a table",
        "[a]\narchitecture = 'cnn'\nhidden = []" => "[a]: `architecture` must be one of", "[l2]\narchitecture = 'dense'\nhidden = []" => "the name l2 is that of another")
        write(file, text)
        @test_throws message variants(file)
    end
    @test_throws "There is no file" variant(joinpath(dirname(file), "no.toml"))
end

@testset "a variant that cannot be built is refused, $given" for (given, message) in (
    (; name="") => "`name` must be letters, digits, _ and -; received: \"\"",
    (; name="a b") => "`name` must be",
    (; name="../a") => "`name` must be",
    (; name="a\n") => "`name` must be",
    (; made_for=1) => "`made_for` must be a text; received: 1",
    (; penalty=nothing) => "`penalty` must be a Dict by group; received: nothing",
    (; dropout=[0.5]) => "`dropout` must be a Dict by group; received: [0.5]",
    (; dropout=Dict("pool" => false)) => "`dropout` must be a rate",
    (; learning_rate=true) => "`learning_rate` must be a finite number above 0; received: true",
    (; learning_rate=1e39) => "`learning_rate` must be",
    (; architecture="cnn") => "`architecture` must be one of chain, dense, photo_cnn, transfer; received: \"cnn\"",
    (; architecture="photo_cn") => "Did you mean photo_cnn?",
    (; hidden=[8, 0]) => "`hidden` must be a whole number, 1 or more; received: 0",
    (; hidden=8) => "`hidden` must be a list of units; received: 8",
    (; penalty=Dict("dense" => L2(0.1))) =>
        "`penalty` of the architecture `photo_cnn` must be one of conv, hidden, output; received: \"dense\"",
    (; penalty=Dict("hiden" => L2(0.1))) => "Did you mean hidden?",
    (; penalty=Dict("conv" => 0.1)) => "`penalty` must be a Penalty a group, such as L2(0.01); received: 0.1",
    (; penalty=Dict("hidden" => L2(0.1)), hidden=[]) => "`penalty` must be without \"hidden\", as there are no hidden layers",
    (; dropout=Dict("conv" => 0.5)) => "`dropout` of the architecture `photo_cnn` must be one of pool, hidden; received: \"conv\"",
    (; architecture="dense", dropout=Dict("pool" => 0.5), penalty=Dict()) => "`dropout` of the architecture `dense`",
    (; architecture="dense") => "`penalty` of the architecture `dense` must be one of hidden, output; received: \"conv\"",
    (; dropout=Dict("pool" => 1)) => "`dropout` must be a rate of 0 or more and below 1; received: 1",
    (; dropout=Dict("pool" => 1 - 1e-9)) => "`dropout` must be a rate",
    (; dropout=Dict("pool" => -0.1)) => "`dropout` must be a rate",
    (; dropout=Dict("pool" => NaN)) => "`dropout` must be a rate",
    (; patience=0) => "`patience` must be a whole number, 1 or more; received: 0",
    (; epochs=0) => "`epochs` must be a whole number, 1 or more; received: 0",
    (; epochs=1.5) => "`epochs` must be a whole number, 1 or more; received: 1.5",
    (; batch_size=0) => "`batch_size` must be",
    (; image_size=1) => "`image_size` must be a whole number, 2 or more; received: 1",
    (; learning_rate=0) => "`learning_rate` must be a finite number above 0; received: 0",
    (; learning_rate=Inf) => "`learning_rate` must be",
    (; learning_rate="fast") => "`learning_rate` must be",
    (; architecture="transfer", penalty=Dict(), dropout=Dict()) => "`backbone` must be the name of one, such as efficientnet-lite2; received: nothing",
    (; architecture="transfer", penalty=Dict(), dropout=Dict(), backbone=" ") => "`backbone` must be the name of one",
    (; backbone="efficientnet-lite2") => "`backbone` must be left out, as the architecture is not transfer; received: \"efficientnet-lite2\"",
    (; proximal=1) => "`proximal` must be true or false; received: 1",
    (; proximal=true, penalty=Dict("conv" => L2(0.1))) => "`proximal` must be false where no kernel has an L1 penalty; received: true",
    (; loss="mse") => "`loss` must be one of cross_entropy, squared_error; received: \"mse\"",
)
    @test_throws ArgumentError Variant(; GOOD..., given...)
    @test_throws message Variant(; GOOD..., given...)
end

@testset "a row of another form is refused, $changed" for (changed, message) in (
    Dict("pentaly" => Dict()) => "`field` of the variant `mine` must be one of",
    Dict("pentaly" => Dict()) => "Did you mean penalty?",
    Dict("epochs" => missing) => "`variant` must be a table with architecture, hidden, epochs,",
    Dict("penalty" => Dict("conv" => Dict("l3" => 0.1))) => "`penalty` must be one of l1, l2; received: \"l3\"",
    Dict("penalty" => Dict("conv" => Dict("l1" => -1))) => "`l1` must be a finite number, 0 or more; received: -1",
    Dict("penalty" => Dict("conv" => 0.1)) => "`penalty` must be a table of l1 and l2, each a finite number, 0 or more; received: 0.1",
    Dict("penalty" => Dict("conv" => Dict("l1" => "x"))) => "`penalty` must be a table of l1 and l2",
    Dict("penalty" => 0.1) => "`penalty` must be a table; received: 0.1",
    Dict("early_stopping" => Dict("patients" => 5)) => "`early_stopping` must be a table with patience",
    Dict("early_stopping" => Dict("patience" => 0)) => "`patience` must be a whole number, 1 or more",
    Dict("name" => "a/b") => "`name` must be",
)
    row = merge(as_dict(variant("l1")), Dict("name" => "mine"), changed)
    filter!(pair -> last(pair) !== missing, row)
    @test_throws ArgumentError Variant(row)
    @test_throws message Variant(row)
end

@testset "there and back through a dictionary, $(v.name)" for v in variants()
    back = Variant(v.name, as_dict(v))
    @test all(getfield(back, f) == getfield(v, f) for f in fieldnames(Variant))
    @test PhotoFlux.JSON.json(as_dict(v)) isa String
    # Of the others run.json is as an earlier PhotoFlux wrote it.
    @test (haskey(as_dict(v), "backbone"), haskey(as_dict(v), "proximal")) == (takes_features(v), v.proximal)
end

@testset "a proximal L1 is of the kernels that have one" begin
    list(v) = Dict(kernel_penalties(layers(v, (12, 10, 3), 2)))
    mine = Variant(; (f => getfield(variant("elastic_net"), f) for f in fieldnames(Variant))..., proximal=true)
    @test list(mine) == Dict(:conv1 => Proximal(ElasticNet(0.005, 0.005)), :conv2 => Proximal(ElasticNet(0.005, 0.005)),
        :conv3 => Proximal(ElasticNet(0.005, 0.005)), :dense1 => L2(0.01))
end

@test startswith(sprint(show, MIME("text/plain"), variant("mlp")), "Variant \"mlp\" (made for CIFAR-10)\n")
@test startswith(sprint(show, MIME("text/plain"), Variant(; name="own", architecture="dense", hidden=[4])), "Variant \"own\"\n")
@test occursin("early stopping  patience 5", sprint(show, MIME("text/plain"), variant("early_stopping")))
