using PhotoFlux: Checkpoints, DivergedError, checkpoint_files, is_due

struct Killed <: Exception end

timeless(run) = [Base.structdiff(row, (; seconds=0)) for row in run.history]
quick(v, data=data_of(v); kwargs...) = train(v, data; epochs=3, batch_size=7, kwargs...)

same(a, b) = arrays(a.model) == arrays(b.model) && timeless(a) == timeless(b) && a.kept_epoch == b.kept_epoch && a.ended == b.ended

# A fit that is ended by an exception, as if it were killed, after that many batches; nothing is written then.
function killed_after(batches, v, data=data_of(v); kwargs...)
    done = 0
    try
        quick(v, data; on_batch=_ -> (done += 1) == batches ? throw(Killed()) : false, kwargs...)
    catch err
        err isa Killed || rethrow()
    end
    return nothing
end

# The sum is a function of every byte, wherever in its array a block ends.
@testset "a checksum" begin
    array = rand(Float32, 2 * PhotoFlux.CHECKSUM_BLOCK ÷ 4 + 3)
    sum_of(x) = PhotoFlux.checksum("fit", "state", ["b" => x, "a" => zeros(Float32, 0, 3)])
    blocks = collect(Iterators.partition(reinterpret(UInt8, htol.(array)), PhotoFlux.CHECKSUM_BLOCK))
    @test length(blocks) == 3
    words = reduce(vcat, reinterpret(UInt8, [htol(PhotoFlux.crc32c(collect(block)))]) for block in blocks)
    @test sum_of(array) == string(PhotoFlux.crc32c([codeunits("fitstateab"); words]); base=16, pad=8)
    for place in (1, length(array) ÷ 2, length(array))
        changed = copy(array)
        changed[place] = nextfloat(changed[place])
        @test sum_of(changed) != sum_of(array)
    end
    swapped = array[[PhotoFlux.CHECKSUM_BLOCK÷4+1:2*PhotoFlux.CHECKSUM_BLOCK÷4; 1:PhotoFlux.CHECKSUM_BLOCK÷4; end-2:end]]
    @test sum_of(swapped) != sum_of(array)
end

# Within an epoch, at its last batch, at the first of the next, in the last epoch; more than once. It is killed before the checkpoint of its last
# batch is written. Among these there is every kind of layer, of penalty and of step, early stopping and dropout.
@testset "a fit that was killed goes on to the same bytes, $(v.name)" for v in variant.(("dropout_early_stopping", "elastic_net", "mlp", "transfer_elastic_net", "transfer_mlp"))
    balance = v.architecture == "transfer" ? "weights" : "augment"
    data = data_of(v; counts=[30, 18])
    whole = quick(v, data; balance)
    batches = cld(length(PhotoFlux.epoch_items(data, 42, 1, balance)), 7)
    mktempdir() do root
        for kills in ([2, 2], [batches, 2], [batches + 1], [batches + 2, batches, 2], [3batches])
            checkpoints = joinpath(root, "checkpoints")
            for (number, kill) in enumerate(kills)
                killed_after(kill, v, data; balance, checkpoints, checkpoint_minutes=0, resume=number > 1)
            end
            rows = []
            run = quick(v, data; balance, checkpoints, checkpoint_minutes=0, resume=true, on_epoch=row -> push!(rows, row))
            @test same(run, whole)
            @test rows == run.history
            @test 1 <= length(readdir(checkpoints)) <= 2
            rm(checkpoints; recursive=true)
        end
    end
end

@testset "the file that is written does not depend on where a fit was killed" begin
    v = variant("dropout_early_stopping")
    mktempdir() do root
        weights(name, run) = read(joinpath(save_run(joinpath(root, name), run), "weights.safetensors"))
        checkpoints = joinpath(root, "killed", "checkpoints")
        killed_after(6, v; checkpoints, checkpoint_minutes=0)
        run = quick(v; checkpoints, resume=true)
        # What is kept of the fit stays until its run is in its place.
        @test !isempty(checkpoint_files(checkpoints))
        @test weights("killed", run) == weights("whole", quick(v))
        @test !ispath(checkpoints)
        @test load_run(joinpath(root, "killed")).notes == []
    end
end

@testset "early stopping goes on where it was" begin
    v = Variant(; (f => getfield(variant("early_stopping"), f) for f in fieldnames(Variant))..., patience=1)
    fitted(; kwargs...) = train(v, data_of(v); epochs=40, batch_size=7, learning_rate=0.02, kwargs...)
    whole = fitted()
    @test whole.ended === :early_stopping && whole.kept_epoch == length(whole.history) - 1
    mktempdir() do root
        last_epoch, checkpoints = length(whole.history), joinpath(root, "c")
        try
            fitted(; checkpoints, checkpoint_minutes=0, on_batch=p -> p.epoch == last_epoch && p.batch == 2 ? throw(Killed()) : false)
        catch err
            err isa Killed || rethrow()
        end
        @test same(fitted(; checkpoints, checkpoint_minutes=0, resume=true), whole)
        # It has ended: nothing is trained again.
        @test same(fitted(; checkpoints, resume=true, on_batch=_ -> error("trained again")), whole)
    end
end

@testset "an interrupted fit goes on" begin
    v = variant("dense_dropout")
    whole = quick(v)
    mktempdir() do root
        checkpoints = joinpath(root, "run", "checkpoints")
        # No checkpoint is due in so short a time; the one of the interruption is written nevertheless.
        part = quick(v; checkpoints, on_batch=p -> p.epoch == 2 && p.batch == 3)
        @test part.ended === :interrupted
        save_run(joinpath(root, "run"), part)
        @test length(checkpoint_files(checkpoints)) >= 1
        run = quick(v; checkpoints, resume=true)
        @test same(run, whole)
        save_run(joinpath(root, "run"), run)
        @test !ispath(checkpoints)
        # In the validation of the second epoch, whose batches are all done then.
        asked, batches = 0, cld(length(indices(data_of(v), :validation)), 7)
        part = quick(v; checkpoints, stopped=() -> (asked += 1) == batches + 1)
        @test part.ended === :interrupted && length(part.history) == 1
        @test same(quick(v; checkpoints, resume=true), whole)
    end
end

@testset "a damaged checkpoint" begin
    v = variant("dense_dropout")
    whole = quick(v)
    mktempdir() do root
        checkpoints = joinpath(root, "c")
        for damage in (bytes -> bytes[1:(end ÷ 2)], bytes -> (bytes[end - 5] ⊻= 1; bytes), bytes -> UInt8[], bytes -> (bytes[200] ⊻= 1; bytes))
            killed_after(8, v; checkpoints, checkpoint_minutes=0)
            newest, before = checkpoint_files(checkpoints)
            write(newest, damage(read(newest)))
            notes = String[]
            run = quick(v; checkpoints, resume=true, on_note=note -> push!(notes, note))
            @test same(run, whole)
            @test notes == run.notes
            @test occursin("went on from the checkpoint $(basename(before)), because $(basename(newest)) is damaged", only(notes))
            rm(checkpoints; recursive=true)
        end
        # As an earlier PhotoFlux wrote them.
        killed_after(8, v; checkpoints, checkpoint_minutes=0)
        for path in checkpoint_files(checkpoints)
            write(path, replace(read(path, String), PhotoFlux.CHECKPOINT_FORMAT => "photoflux-checkpoint-1"))
        end
        @test_throws r"is of another PhotoFlux \(its format is photoflux-checkpoint-1, and this one reads photoflux-checkpoint-\d\)" quick(v; checkpoints, resume=true)
        foreach(path -> write(path, "x"), checkpoint_files(checkpoints))
        @test_throws "No checkpoint in $checkpoints can be read" quick(v; checkpoints, resume=true)
    end
end

@testset "what cannot be resumed" begin
    v = variant("dense_dropout")
    mktempdir() do root
        checkpoints = joinpath(root, "c")
        @test_throws "There is nothing to resume: $checkpoints has no checkpoint" quick(v; checkpoints, resume=true)
        @test_throws "`resume` needs `checkpoints`" quick(v; resume=true)
        @test_throws "`checkpoint_minutes` must be a finite number, 0 or more; received: -1" quick(v; checkpoints, checkpoint_minutes=-1)
        killed_after(8, v; checkpoints, checkpoint_minutes=0)
        @test_throws "has the checkpoints of an unfinished fit" quick(v; checkpoints)
        @test_throws r"setting +checkpoint +given\n  batch size +7 +5\n  epochs +3 +9\n" train(v, data_of(v); epochs=9, batch_size=5, checkpoints, resume=true)
        @test_throws r"variant dropout +.+ +none\n.*variant name +dense_dropout +dense_l2"s quick(variant("dense_l2"); checkpoints, resume=true)
        @test_throws r"images +48 +40" quick(v, data_of(v; counts=[20, 20]); checkpoints, resume=true)
        @test_throws "learning rate" quick(v; learning_rate=0.5, checkpoints, resume=true)
        @test length(checkpoint_files(checkpoints)) == 2
    end
end

# The rule: after an epoch, and in one after so many minutes; but never for more than 2 % of the time.
@testset "when a checkpoint is due" begin
    model = small_model(variant("dense_l2"))
    function due(elapsed, cost, epoch_is_over; minutes=10)
        checkpoints = Checkpoints("somewhere"; minutes)
        checkpoints.last, checkpoints.cost = time() - elapsed, cost
        return is_due(checkpoints, model, epoch_is_over)
    end
    @test due(100.1, 2.0, true) && !due(99, 2.0, true)
    @test due(601, 2.0, false) && !due(599, 2.0, false) && !due(601, 13.0, false)
    @test due(0, 100.0, false; minutes=0)
    @test due(1, NaN, true) && !due(0.1, NaN, true)
    @test !is_due(Checkpoints(), model, true) && !is_due(Checkpoints(""; minutes=0), model, false)
end

@testset "a checkpoint that cannot be written costs a note" begin
    v = variant("dense_l2")
    mktempdir() do root
        file = joinpath(root, "file")
        touch(file)
        run = @test_logs (:warn, r"A checkpoint could not be written, and the fit went on without: .*file") quick(v; checkpoints=joinpath(file, "c"), checkpoint_minutes=0)
        @test same(run, quick(v))
        @test length(run.notes) == 1
        @test load_run(save_run(joinpath(root, "run"), run)).notes == run.notes
    end
end

@testset "a folder that vanishes in a fit is not made anew" begin
    v = variant("dense_l2")
    mktempdir() do root
        checkpoints = joinpath(root, "share", "c")
        run = @test_logs (:warn, r"A checkpoint could not be written") quick(v; checkpoints, checkpoint_minutes=0,
            on_batch=p -> (p.epoch == 1 && p.batch == 3 && mv(dirname(checkpoints), joinpath(root, "elsewhere")); false))
        @test same(run, quick(v)) && length(run.notes) == 1
        @test readdir(root) == ["elsewhere"]
        mv(joinpath(root, "elsewhere"), dirname(checkpoints))
        @test same(quick(v; checkpoints, resume=true), run)
    end
end

# At this rate the loss overflows, and at an eighth of it or before it does not.
@testset "half the learning rate where the loss is not finite" begin
    v = variant("dense_l2")
    fitted(; learning_rate=1e18, kwargs...) = quick(v; learning_rate, on_nonfinite="halve", on_note=identity, kwargs...)
    whole = fitted()
    n = length(whole.notes)
    @test 1 <= n <= 3 && length(whole.history) == 3
    @test occursin(r"went on from the (start|end of epoch \d) with the learning rate 5\.0e17 in place of 1\.0e18 \(1 of 3 times\)", first(whole.notes))
    # Where that was in the first epoch, the fit is the one that the last rate gives.
    all(contains("from the start"), whole.notes) && @test same(whole, quick(v; learning_rate=1e18 / 2^n))
    mktempdir() do root
        checkpoints = joinpath(root, "c")
        killed_after(13, v; learning_rate=1e18, on_nonfinite="halve", on_note=identity, checkpoints, checkpoint_minutes=0)
        run = fitted(; checkpoints, resume=true)
        @test same(run, whole) && run.notes == whole.notes
        @test load_run(save_run(joinpath(root, "run"), run)).settings.on_nonfinite == "halve"
    end
    err = try fitted(; learning_rate=1e30) catch err; err end
    @test err isa DivergedError && err.learning_rate == 1e30 / 8 && length(err.run.notes) == 3
    @test occursin("learning rate 5.0e29 in place of 1.0e30 (1 of 3 times)", err.run.notes[1])
    @test_throws "Did you mean halve?" quick(v; on_nonfinite="halv")
end

# A weight that is not finite was made by the step before; the loss shows it one batch later.
@testset "what a loss that is not finite says" begin
    v = variant("dense_l2")
    err = try quick(v; learning_rate=1e30) catch err; err end
    batches = [filter(i -> i > 0, [item.index for item in part]) for part in Iterators.partition(PhotoFlux.epoch_items(data_of(v), 42, err.epoch, "none"), 7)]
    @test err.images == batches[err.source]
    @test issorted(abs.(last.(err.largest)); rev=true) && first(first(err.largest)) in ("dense1.weight", "dense1.bias", "output.weight", "output.bias")
    model = small_model(v)
    @test PhotoFlux.source_of_failure(model, 3) == 3
    model[:dense1].weight[5] = NaN32
    @test PhotoFlux.source_of_failure(model, 3) == 2 && PhotoFlux.source_of_failure(model, 1) == 1
    optimiser = Optimisers.setup(KerasAdam(), model)
    @test isequal(first(PhotoFlux.largest_weights(model, optimiser)), "dense1.weight" => NaN32)
end
