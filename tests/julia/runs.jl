mktempdir() do root
    @testset "there and back, $(v.name)" for v in variants()
        data = data_of(v; classes=3)
        run = train(v, data; epochs=2, batch_size=16)
        back = load_run(save_run(joinpath(root, v.name), run))
        @test arrays(back.model) == arrays(run.model)
        @test predict(back, data.images) == predict(run, data.images)
        @test isequal(evaluate(back, data), evaluate(run, data))
        @test back.history == run.history
        @test (back.kept_epoch, back.ended, back.classes, back.data) == (run.kept_epoch, run.ended, run.classes, run.data)
        @test Dict(pairs(back.settings)) == Dict(pairs(run.settings))
        @test occursin("Run of \"$(v.name)\" on tiny: 2 epochs", sprint(show, MIME("text/plain"), back))
    end

    # Python's run.json and settings have the same digits; 64 bits are not enough for them.
    @testset "seed $seed" for seed in (0, big(2)^63 - 1, big(2)^63, big(2)^64, big(2)^100)
        v = variant("dense_dropout")
        data = data_of(v)
        run = train(v, data; epochs=1, seed)
        back = load_run(save_run(joinpath(root, "seed $seed"), run))
        @test back.settings.seed == run.settings.seed == seed
        @test occursin(Regex("\"seed\": *$seed\\b"), read(joinpath(root, "seed $seed", "run.json"), String))
        @test PhotoFlux.settings_from_json("{\"seed\": $seed}").seed == seed
        @test arrays(back.model) == arrays(train(v, data; epochs=1, seed).model)
        @test arrays(back.model) != arrays(train(v, data; epochs=1, seed=seed % 2^62 + 1).model)
    end

    v = variant("baseline")
    run = train(v, data_of(v); epochs=1)
    folder = save_run(joinpath(root, "run"), run)

    @testset "a folder that is not a run is refused" begin
        write(joinpath(mkpath(joinpath(root, "other")), "thesis.tex"), "")
        @test_throws "exists and is not a run" save_run(joinpath(root, "other"), run)
        @test readdir(joinpath(root, "other")) == ["thesis.tex"]
        @test save_run(folder, run) == folder
        @test_throws "is not a run: it has no run.json" load_run(joinpath(root, "other"))
        # A process that was killed while it saved a run there; no process has this number.
        left = joinpath(mkpath(joinpath(root, "killed")), replace(PhotoFlux.temporary_name("weights.safetensors"), "-$(getpid())-" => "-$(2^22 + 1)-"))
        write(left, "half of it")
        @test save_run(joinpath(root, "killed"), run) == joinpath(root, "killed") && !ispath(left)
    end

    @testset "what Python adds" begin
        text = read(joinpath(folder, "run.json"), String)
        added = replace(text, "{" => "{\"threshold\": {\"score\": 0.4, \"promise\": \"recall\"}, \"temperature\": 1.5, "; count=1)
        write(joinpath(folder, "run.json"), added)
        @test arrays(load_run(folder).model) == arrays(run.model)
        # Scores of an earlier run would be taken for this one's.
        derived = ("logits.safetensors", "reference.safetensors", "report.html", "calibration.png")
        foreach(name -> write(joinpath(folder, name), ""), derived)
        save_run(folder, run)
        @test sort(readdir(folder)) == ["history.csv", "run.json", "seen.safetensors", "weights.safetensors"]
    end

    @testset "images of another size" begin
        @test_throws "The run's images are 12×10×3" predict(run, zeros(UInt8, 8, 8, 3, 1))
        @test_throws DimensionMismatch evaluate(run, tiny_data(; size=(8, 8, 3)))
    end

    @testset "damaged" begin
        dense = train("dense_l2", data_of(variant("dense_l2")); epochs=1)
        write_weights(joinpath(folder, "weights.safetensors"), dense.model, layers(dense))
        @test_throws DimensionMismatch load_run(folder)
        write(joinpath(folder, "run.json"), "{\"format\": 7}")
        @test_throws "run format 7" load_run(folder)
        write(joinpath(folder, "run.json"), "{")
        @test_throws "is not JSON" load_run(folder)
    end
end
