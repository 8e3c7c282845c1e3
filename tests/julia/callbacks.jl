using PhotoFlux: schedule_factor

struct Killed <: Exception end

const V = variant("dense_l2")
const DATA = data_of(V)
# Five batches an epoch.
quick(; epochs=3, data=DATA, on_note=identity, kwargs...) = train(V, data; epochs, batch_size=7, on_note, kwargs...)

timeless(run) = [Base.structdiff(row, (; seconds=0)) for row in run.history]
same(a, b) = arrays(a.model) == arrays(b.model) && timeless(a) == timeless(b) && a.kept_epoch == b.kept_epoch && a.ended == b.ended && a.notes == b.notes

# Does f(fit) at one of the moments.
struct At{moment,F}
    f::F
end

At(moment::Symbol, f) = At{moment,typeof(f)}(f)

for moment in (:on_train_begin, :on_epoch_begin, :on_batch_end, :on_epoch_end, :on_train_end)
    @eval PhotoFlux.$moment(callback::At{$(QuoteNode(moment))}, fit) = callback.f(fit)
end

function killed_after(batches; kwargs...)
    done = 0
    try
        quick(; on_batch=_ -> (done += 1) == batches ? throw(Killed()) : false, kwargs...)
    catch err
        err isa Killed || rethrow()
    end
    return nothing
end

@testset "what a callback is told, and when" begin
    seen, moments = [], (:on_train_begin, :on_epoch_begin, :on_batch_end, :on_epoch_end, :on_train_end)
    note(moment) = At(moment, fit -> push!(seen, (moment, fit.epoch, fit.batch, fit.loss, fit.accuracy, length(fit.history))))
    progress = []
    run = quick(; epochs=2, callbacks=note.(moments), on_batch=p -> (push!(progress, p); false))
    of_epoch(e) = [(:on_epoch_begin, e, 0), ((:on_batch_end, e, b) for b in 1:5)..., (:on_epoch_end, e, 5)]
    @test [row[1:3] for row in seen] == [(:on_train_begin, 1, 0), of_epoch(1)..., of_epoch(2)..., (:on_train_end, 2, 5)]
    @test [row[4:5] for row in seen if row[1] === :on_batch_end] == [(p.loss, p.accuracy) for p in progress]
    @test all(row -> isnan(row[4]) && isnan(row[5]), filter(row -> row[1] === :on_epoch_begin, seen))
    @test [row[6] for row in seen if row[1] in (:on_train_begin, :on_epoch_begin, :on_epoch_end)] == [0, 0, 1, 1, 2]
    # The numbers are those without callbacks.
    @test same(run, quick(; epochs=2))

    about = []
    quick(; epochs=1, learning_rate=0.25, callbacks=(At(:on_train_end, fit -> push!(about, fit)),))
    fit = only(about)
    @test fit.epochs == 1 && fit.batches == 5 && fit.learning_rate == 0.25 && fit.variant.name == "dense_l2" && fit.settings.batch_size == 7
    @test fit.model isa Flux.Chain && fit.seconds > 0 && only(fit.history).epoch == 1
    @test sprint(show, fit) == "PhotoFlux.Fit of \"dense_l2\": epoch 1 of 1, batch 5 of 5"
    @test_throws "A fit has no `rate`; it has epoch, " fit.rate
    @test_throws "only `learning_rate` can be set; received: `epoch`" fit.epoch = 3
end

@testset "a callback may stop the fit" begin
    at(epoch, batch) = At(:on_batch_end, fit -> (fit.epoch, fit.batch) == (epoch, batch) && stop!(fit))
    # Within an epoch: it is validated, and its row has the means over the batches that it had.
    losses = []
    run = quick(; callbacks=[at(2, 3)], on_batch=p -> (push!(losses, p.loss); false))
    @test run.ended === :stopped && length(run.history) == 2 && length(losses) == 5 + 3 && run.kept_epoch == 2
    @test run.history[2].train_total ≈ last(losses)
    @test run.history[2].validation_total ≈ evaluate(run, DATA; part=:validation, batch_size=7).total
    @test only(run.notes) == "The fit was stopped in epoch 2, after batch 3 of 5, by the callback At (on_batch_end): the training figures of that epoch " *
                             "are those of these batches."
    @test occursin("(ended by a callback)", sprint(show, MIME("text/plain"), run))
    # After an epoch, it is the fit of fewer epochs.
    after = At(:on_epoch_end, fit -> fit.epoch == 2 && stop!(fit))
    run = quick(; callbacks=[after])
    @test run.ended === :stopped && only(run.notes) == "The fit was stopped after epoch 2 by the callback At (on_epoch_end)."
    @test arrays(run.model) == arrays(quick(; epochs=2).model)
    @test quick(; callbacks=[at(2, 5)]).history[2].train_total == run.history[2].train_total
    # What was asked for before a batch comes after it.
    @test length(quick(; callbacks=[At(:on_train_begin, stop!)]).history) == 1
    # The end that there is anyway has not been asked for.
    run = quick(; epochs=2, callbacks=[after])
    @test run.ended === :epochs && run.notes == []
    # A finished run: no checkpoints are left, and what is resumed does not go on.
    mktempdir() do root
        folder = joinpath(root, "run")
        checkpoints = joinpath(folder, "checkpoints")
        run = quick(; callbacks=[at(2, 3)], checkpoints, checkpoint_minutes=0)
        @test same(quick(; checkpoints, resume=true, on_batch=_ -> error("trained again")), run)
        save_run(folder, run)
        @test !ispath(checkpoints) && load_run(folder).ended === :stopped
    end
end

@testset "early stopping restores the best weights of a fit that was stopped" begin
    v = Variant(; (f => getfield(V, f) for f in fieldnames(Variant))..., patience=5)
    run = train(v, DATA; epochs=6, batch_size=7, learning_rate=0.3, on_note=identity, callbacks=[At(:on_batch_end, fit -> fit.epoch == 3 && stop!(fit))])
    totals = [row.validation_total for row in run.history]
    @test run.ended === :stopped && length(totals) == 3 && run.kept_epoch == argmin(totals)
    @test evaluate(run, DATA; part=:validation, batch_size=7).total == totals[run.kept_epoch]
end

@testset "a callback may set the learning rate" begin
    decay = At(:on_epoch_end, fit -> fit.learning_rate /= 2)
    read_ = Float64[]
    run = quick(; learning_rate=0.01, callbacks=[decay, At(:on_batch_end, fit -> push!(read_, fit.learning_rate))])
    @test read_ == repeat([0.01, 0.01 / 2, 0.01 / 4]; inner=5)
    # The schedule with these factors gives the same.
    @test arrays(run.model) == arrays(quick(; learning_rate=0.01, schedule=p -> 2.0^-floor(Int, 3p)).model)
    # Of a fit that is resumed it is the checkpoint's, in whatever epoch and batch; what `on_train_begin` sets is for one that begins.
    start = At(:on_train_begin, fit -> fit.learning_rate = 0.01)
    whole = quick(; learning_rate=0.5, callbacks=[start, decay])
    @test arrays(whole.model) == arrays(run.model)
    mktempdir() do root
        for kills in ([2], [5, 1], [6], [7, 3], [13])
            checkpoints = joinpath(root, "c")
            options = (; learning_rate=0.5, callbacks=[start, decay], checkpoints, checkpoint_minutes=0)
            foreach(number -> killed_after(kills[number]; options..., resume=number > 1), eachindex(kills))
            @test same(quick(; options..., resume=true), whole)
            rm(checkpoints; recursive=true)
        end
    end
    @test_throws "`learning_rate` must be a finite number above 0; received: 0.0" quick(; callbacks=[At(:on_train_begin, fit -> fit.learning_rate = 0.0)])
    @test_throws "cannot be set in a fit with the schedule \"cosine\"" quick(; schedule="cosine", callbacks=[decay])
    # Half of what it was set to, where the loss overflows.
    half = quick(; learning_rate=1.0, on_nonfinite="halve", callbacks=[At(:on_train_begin, fit -> fit.learning_rate = 1e18)])
    @test occursin("with the learning rate 5.0e17 in place of 1.0e18", first(half.notes))
end

@testset "errors of callbacks" begin
    for moment in (:on_train_begin, :on_epoch_begin, :on_batch_end, :on_epoch_end, :on_train_end)
        @test_throws "mine" quick(; epochs=1, callbacks=[At(moment, _ -> error("mine"))])
    end
    # A Ctrl-C keeps the run so far.
    run = quick(; callbacks=[At(:on_batch_end, fit -> fit.epoch == 2 && throw(InterruptException()))])
    @test run.ended === :interrupted && length(run.history) == 1
    @test quick(; epochs=1, callbacks=[At(:on_train_end, _ -> throw(InterruptException()))]).ended === :epochs
    @test_throws r"`callbacks` must be a list, such as \[.*At\{" quick(; callbacks=At(:on_epoch_end, identity))
    @test_throws r"The callback of the type Int\d+ has no method of on_train_begin, .* and on_train_end" quick(; callbacks=[3])
end

# The formulas of the docstring, at the batches of which they are asked.
@testset "schedules" begin
    rates(schedule; epochs=4, kwargs...) = (found = Float64[];
        quick(; epochs, schedule, learning_rate=0.01, callbacks=[At(:on_batch_end, fit -> push!(found, fit.learning_rate))], kwargs...);
        found)
    p = [done / 20 for done in 0:19]  # 4 epochs of 5 batches
    @test rates("constant") == fill(0.01, 20)
    # 4 epochs: the thirds begin at epochs 1, 7/3 and 11/3, so it falls before epochs 3 and 4.
    @test rates("step") ≈ repeat([0.01, 0.01, 0.001, 0.0001]; inner=5)
    @test [schedule_factor("step", NaN, e, 6) for e in 1:6] ≈ [1, 1, 0.1, 0.1, 0.01, 0.01]
    @test rates("cosine") ≈ 0.01 .* (1 .+ cos.(π .* p)) ./ 2
    up, down = p[p .<= 0.3] ./ 0.3, (p[p .> 0.3] .- 0.3) ./ 0.7
    @test rates("one_cycle") ≈ 0.01 .* [1 / 25 .+ (1 - 1 / 25) .* up; 4e-6 .+ (1 - 4e-6) .* (1 .+ cos.(π .* down)) ./ 2]
    @test maximum(rates("one_cycle")) ≈ 0.01
    @test rates(p -> 1 - p) ≈ 0.01 .* (1 .- p)
    # The step that is made is the one of that rate: in the first one no other factor plays a part.
    first_step(; kwargs...) = quick(; epochs=1, on_batch=Returns(true), kwargs...)
    @test arrays(first_step(; learning_rate=0.01, schedule="one_cycle").model) == arrays(first_step(; learning_rate=0.01 / 25).model)
    @test_throws "Did you mean cosine?" quick(; schedule="cosin")
    @test_throws "`schedule` must be one of constant, step, cosine, one_cycle, or a function of a number" quick(; schedule=0.5)
    @test_throws "at the progress 0.0 it gave: -1" quick(; schedule=Returns(-1))
    @test_throws "it gave: nothing" quick(; schedule=Returns(nothing))
end

@testset "a schedule goes on where it was, and is in the run" begin
    for schedule in ("one_cycle", p -> 1 - p / 2)
        whole = quick(; schedule)
        @test whole.settings.schedule == (schedule isa String ? schedule : "own")
        @test arrays(whole.model) != arrays(quick().model)
        mktempdir() do root
            for kill in (2, 6, 8, 14)
                checkpoints = joinpath(root, "c")
                killed_after(kill; schedule, checkpoints, checkpoint_minutes=0)
                @test_throws r"schedule +\S+ +constant" quick(; checkpoints, resume=true)
                @test same(quick(; schedule, checkpoints, resume=true), whole)
                rm(checkpoints; recursive=true)
            end
            @test Dict(pairs(load_run(save_run(joinpath(root, "run"), whole)).settings)) == Dict(pairs(whole.settings))
        end
    end
    # As before there were any: a checkpoint, and a run.
    earlier = Dict{String,Any}("epochs" => "3")
    @test PhotoFlux.check_same_fit("c", earlier, Dict("epochs" => "3", "schedule" => "constant")) === nothing
    @test_throws r"schedule +constant +cosine" PhotoFlux.check_same_fit("c", earlier, Dict("epochs" => "3", "schedule" => "cosine"))
    mktempdir() do root
        save_run(joinpath(root, "run"), quick(; epochs=1))
        @test !occursin("schedule", read(joinpath(root, "run", "run.json"), String))
        @test load_run(joinpath(root, "run")).settings.schedule == "constant"
    end
    # Halved, the rate is multiplied.
    half = Float64[]
    quick(; epochs=4, learning_rate=1e18, schedule=p -> 1 - p, on_nonfinite="halve", callbacks=[At(:on_batch_end, fit -> push!(half, fit.learning_rate))])
    @test last(half) in 1e18 .* 2.0 .^ -(1:3) .* (1 - 19 / 20)
end

# No clock decides: of these times the one is over at the first batch, the other is not in a test.
@testset "a time budget" begin
    run = quick(; max_time=1e-9)
    @test run.ended === :stopped && length(run.history) == 1
    @test only(run.notes) == "The fit was stopped in epoch 1, after batch 1 of 5, by `max_time`, 1.0e-9 s: the training figures of that epoch are those of " *
                             "these batches."
    @test same(quick(; max_time=1e6), quick())
    # What was spent before a fit was killed counts, in epochs that are over as in the one that is not: an hour of two.
    hour_ago = At(:on_batch_end, fit -> fit.batch == 1 && (getfield(fit, :loop).state.began -= 3600))
    mktempdir() do root
        checkpoints = joinpath(root, "c")
        killed_after(8; callbacks=[hour_ago], checkpoints, checkpoint_minutes=0)
        run = quick(; checkpoints, resume=true, max_time=7000)
        # Batch 7 is the last of which there is a checkpoint.
        @test run.ended === :stopped && occursin("in epoch 2, after batch 3 of 5, by `max_time`", only(run.notes))
        @test 7200 < sum(row -> row.seconds, run.history) < 7200 + 1800
        rm(checkpoints; recursive=true)
        killed_after(8; callbacks=[hour_ago], checkpoints, checkpoint_minutes=0)
        @test quick(; checkpoints, resume=true, max_time=9000).ended === :epochs
    end
    @test_throws "`max_time` must be a finite number above 0; received: 0" quick(; max_time=0)
end
