/** Priority classes and the levels that they stand for. */

export const CLASSES = ["low", "normal", "high", "urgent", "critical"];

/** Levels that an override may set: those of the classes, and one above them all. */
export const LEVELS = [...CLASSES.map((name, index) => [10 * index, name]), [50, "above all"]];

const NEEDED = {
  high: "job.priority.high",
  urgent: "job.priority.urgent",
  critical: "job.priority.urgent",
};

/** The classes that a person may ask for. */
export const classesOf = (person) =>
  CLASSES.filter((name) => !NEEDED[name] || person.may(NEEDED[name]));

/** A level by the name of its class. */
export const levelName = (level) =>
  LEVELS.find(([known]) => known === level)?.[1] ?? String(level);
