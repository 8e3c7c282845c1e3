using PhotoFlux: as_dict

@testset "the table is the design's" begin
    @test [v.name for v in variants()] == ["baseline", "dropout", "early_stopping", "l1", "l2",
        "dropout_early_stopping", "elastic_net", "mlp", "dense_l2", "dense_dropout"]
    rows = Dict(v.name => v for v in variants())
    @test all(rows[n].patience == 5 && rows[n].epochs == 30 for n in ("early_stopping", "dropout_early_stopping"))
    @test all(v.patience === nothing for v in variants() if !occursin("early_stopping", v.name))
    @test all(rows[n].dropout == Dict("pool" => 0.25f0, "hidden" => 0.5f0) for n in ("dropout", "dropout_early_stopping"))
    @test rows["mlp"].dropout == Dict("hidden" => 0.2f0)
    @test rows["mlp"].hidden == [512, 256]
    @test rows["mlp"].learning_rate == 1.0f-4
    @test rows["dense_dropout"].hidden == [64, 64]
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
    @test variant("mlp"; loss="squared_error").loss == "squared_error"
    @test variant("l2").penalty["conv"] == L2(0.01)  # the table is untouched
    @test_throws "has no penalty" variant("baseline"; l2=0.1)
    @test_throws "0 or more" variant("l2"; l2=-1)
    @test_throws "must be one of cross_entropy, squared_error" variant("l2"; loss="mse")
end

@testset "there and back through a dictionary, $(v.name)" for v in variants()
    back = Variant(v.name, as_dict(v))
    @test all(getfield(back, f) == getfield(v, f) for f in fieldnames(Variant))
    @test PhotoFlux.JSON.json(as_dict(v)) isa String
end

@test occursin("early stopping  patience 5", sprint(show, MIME("text/plain"), variant("early_stopping")))
