import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";

import { post, type Schemas } from "../api/client";
import { questions, runPath } from "../api/queries";
import { Card, Empty, Load, ProblemBox, RunLink, Time } from "../ui/kit";

type Question = Schemas["QuestionList"]["questions"][number];

export function Questions() {
  const found = useQuery(questions());
  return (
    <>
      <div className="page-head">
        <h1>Questions</h1>
      </div>
      <Load query={found}>
        {(data) =>
          data.questions.length ? (
            data.questions.map((one) => <QuestionCard key={`${one.run_id}/${one.step}`} one={one} />)
          ) : (
            <Card>
              <Empty>No run waits for an answer.</Empty>
            </Card>
          )
        }
      </Load>
    </>
  );
}

export function QuestionCard({ one }: { one: Question }) {
  const cache = useQueryClient();
  const answer = useMutation({
    mutationFn: (choice: string) =>
      post(`${runPath(one.run_id)}/steps/${encodeURIComponent(one.step)}/answer`, { choice }),
    onSuccess: () => cache.invalidateQueries({ queryKey: ["questions"] }),
  });
  return (
    <Card title={one.question} aside={<RunLink id={one.run_id}>{one.pipeline}</RunLink>}>
      <div className="pad">
        <p className="soft">
          asked <Time at={one.since} />
          {one.until !== null && (
            <>
              , until <Time at={one.until} />
              {one.default !== null && <>, then {one.default}</>}
            </>
          )}
        </p>
        <div className="buttons">
          {one.choices.map((choice) => (
            <button type="button" key={choice} disabled={answer.isPending} onClick={() => answer.mutate(choice)}>
              {choice}
            </button>
          ))}
        </div>
        {answer.error && <ProblemBox error={answer.error} />}
      </div>
    </Card>
  );
}
